# Every command and flag through libnbd (the library of nbdsh), errors included. Argument: the URI of an empty export.
import errno
import sys

try:
    import nbd
except ImportError:
    sys.exit("the Python module nbd is missing: install the Debian package python3-libnbd")


def fails(expected, call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as error:
        assert error.errnum == expected, error
        return
    raise AssertionError("no error")


h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.set_full_info(True)
h.connect_uri(sys.argv[1])
assert h.get_size() == 64 << 20
assert h.get_canonical_export_name() == "disk"
assert h.get_structured_replies_negotiated()
assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)

data = bytes(range(256)) * 256
h.pwrite(data, 0)
h.pwrite(data, 1 << 20, nbd.CMD_FLAG_FUA)
assert h.pread(len(data), 0) == data
assert h.pread(len(data), 1 << 20) == data

chunks = []
chunk = lambda part, offset, kind, error: chunks.append((offset, len(part), kind))
h.pread_structured(131072, 0, chunk, nbd.CMD_FLAG_DF)
assert chunks == [(0, 131072, nbd.READ_DATA)], chunks
chunks.clear()
h.pread_structured(3 << 20, 0, chunk)
assert (0, 65536, nbd.READ_DATA) in chunks
assert (65536, (1 << 20) - 65536, nbd.READ_HOLE) in chunks

h.zero(4096, 0)
h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
h.zero(4096, 8192, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(16384, 0) == bytes(12288) + data[12288:16384]
h.trim(4096, 12288)
h.trim(4096, 16384, nbd.CMD_FLAG_FUA)
h.flush()
h.cache(1 << 20, 0)

extents = []
status = lambda context, offset, entries, error: extents.append((context, offset, entries))
h.block_status(1 << 20, 0, status)
assert extents == [("base:allocation", 0, [4096, 3, 4096, 0, 12288, 3, 45056, 0, (1 << 20) - 65536, 3])], extents
extents.clear()
h.block_status(1 << 20, 0, status, nbd.CMD_FLAG_REQ_ONE)
assert extents == [("base:allocation", 0, [4096, 3])], extents

# libnbd would not send these by itself.
h.set_strict_mode(0)
end = h.get_size()
fails(errno.EINVAL, h.pread, 512, end)
fails(errno.ENOSPC, h.pwrite, b"x", end)
fails(errno.ENOSPC, h.zero, 2, end - 1)
fails(errno.EINVAL, h.trim, 2, end - 1)
fails(errno.EINVAL, h.pwrite, b"x", 0, nbd.CMD_FLAG_DF)
fails(errno.EINVAL, h.block_status, 512, end, status)

# Many in flight, waited for together.
cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i] * 4096)), (2 << 20) + i * 4096) for i in range(64)]
while h.aio_in_flight() > 0:
    h.poll(-1)
assert all(h.aio_command_completed(cookie) for cookie in cookies)
assert h.pread(4096, (2 << 20) + 63 * 4096) == bytes([63] * 4096)
h.shutdown()

# The old way in: no structured replies, no GO.
h = nbd.NBD()
h.set_request_structured_replies(False)
h.set_export_name("disk")
h.connect_uri(sys.argv[1])
assert not h.get_structured_replies_negotiated()
assert h.pread(4096, (2 << 20) + 4096) == bytes([1] * 4096)
h.shutdown()
print("done")

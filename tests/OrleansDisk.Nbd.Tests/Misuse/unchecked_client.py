# Bad requests through libnbd with its own checks turned off. Argument: the URI of an export of 1 MiB, 512-byte blocks.
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
        assert error.errnum in expected, (call, arguments, error)
    else:
        raise AssertionError((call, arguments))
    assert h.pread(512, 0) == bytes(512)


h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(sys.argv[1])
size = h.get_size()
invalid = [errno.EINVAL]

# Nothing asked for.
fails(invalid, h.pread, 0, 0)
fails(invalid, h.pwrite, b"", 0)
fails(invalid, h.zero, 0, 0)
fails(invalid, h.trim, 0, 0)
fails(invalid, h.cache, 0, 0)

# Off the block size.
fails(invalid, h.pread, 511, 0)
fails(invalid, h.pread, 512, 1)
fails(invalid, h.pwrite, bytes(100), 0)
fails(invalid, h.trim, 512, 100)

# Past the end.
fails(invalid, h.pread, 512, size)
fails(invalid, h.pread, 1024, size - 512)
fails(invalid, h.pread, 512, (1 << 63) - 512)
fails([errno.ENOSPC], h.pwrite, bytes(1024), size - 512)
fails([errno.ENOSPC], h.zero, 1024, size - 512)
fails(invalid, h.trim, 1024, size - 512)

# Longer than the server takes, though the library would send it.
fails([errno.EOVERFLOW, errno.EINVAL], h.pread, (32 << 20) + 512, 0)
fails([errno.EINVAL, errno.ENOSPC], h.pwrite, bytes((32 << 20) + 512), 0)

# Flags that the command does not have, and a command without its context.
fails(invalid, h.pread, 512, 0, nbd.CMD_FLAG_NO_HOLE)
fails(invalid, h.pwrite, bytes(512), 0, nbd.CMD_FLAG_REQ_ONE)
fails(invalid, h.trim, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
fails(invalid, h.flush, nbd.CMD_FLAG_DF)
fails(invalid, h.block_status, 512, 0, lambda *_: 0)

h.shutdown()
print("done")

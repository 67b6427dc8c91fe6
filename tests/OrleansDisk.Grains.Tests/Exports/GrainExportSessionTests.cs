using System.Buffers.Binary;
using OrleansDisk.Abstractions;
using OrleansDisk.Grains.Tests.Fixtures;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Grains.Tests.Exports;

/// <summary>Sessions that reach their image without a grain call, and what happens when the grain takes it back.</summary>
public sealed class GrainExportSessionTests
{
    [Fact]
    public async Task A_session_in_the_images_process_sends_nothing_to_the_grain()
    {
        await using ImageSilo silo = await SiloAsync();
        await using ExportedImage image = await ExportedImage.OpenAsync(silo, "vm/disk");
        await image.WriteAsync(65536, TestBatch.Filled(4096, 7)); // allocates
        await image.WriteAsync(65536, TestBatch.Filled(4096, 8)); // overwrites
        await image.FlushAsync();
        Assert.Equal(TestBatch.Filled(4096, 8), await image.ReadAsync(65536, 4096));
        Assert.Equal(0, image.Grain.BatchCount);
    }

    [Fact]
    public async Task A_session_goes_on_when_the_grain_has_closed_the_image()
    {
        await using ImageSilo silo = await SiloAsync();
        await using ExportedImage image = await ExportedImage.OpenAsync(silo, "vm/disk");
        for (byte round = 1; round <= 3; round++)
        {
            await image.WriteAsync(0, TestBatch.Filled(4096, round));
            await image.Grain.CloseAsync();
            Assert.Equal(0, silo.OpenImages.Count); // nothing of the session holds the file
            await silo.Pool.CheckAllAsync();
            Assert.Equal(TestBatch.Filled(4096, round), await image.ReadAsync(0, 4096));
            Assert.Equal(2 * round, image.Grain.BatchCount); // by the grain: refused, and sent again to the next opening
        }
    }

    [Fact]
    public async Task Nothing_that_was_acknowledged_is_lost_while_the_image_is_closed_again_and_again()
    {
        const int BlockCount = 64;
        await using ImageSilo silo = await SiloAsync();
        await using ExportedImage image = await ExportedImage.OpenAsync(silo, "vm/disk");
        ulong[] acknowledged = new ulong[BlockCount];
        ulong stamp = 1;
        var closing = Task.Run(async () =>
        {
            for (int i = 0; i < 50; i++)
            {
                await image.Grain.CloseAsync();
                ulong seen = Volatile.Read(ref stamp);
                await Eventually.TrueAsync(() => Volatile.Read(ref stamp) > seen + 1, "the session went on");
            }
        });
        for (; !closing.IsCompleted; Volatile.Write(ref stamp, stamp + 1))
        {
            ulong block = stamp % BlockCount;
            byte[] data = new byte[512];
            BinaryPrimitives.WriteUInt64LittleEndian(data, stamp);
            await image.WriteAsync((long)block * 40_960, data);
            acknowledged[block] = stamp;
        }
        await closing;
        for (int block = 0; block < BlockCount; block++)
            Assert.Equal(acknowledged[block], BinaryPrimitives.ReadUInt64LittleEndian(await image.ReadAsync(block * 40_960L, 512)));
    }

    [Fact]
    public async Task What_grows_beneath_a_session_stays_readable_and_writable()
    {
        await using ImageSilo silo = await SiloAsync();
        await using ExportedImage image = await ExportedImage.OpenAsync(silo, "vm/disk");
        await image.WriteAsync(0, TestBatch.Filled(4096, 1));
        await image.Grain.ResizeAsync(1L << 40, mayShrink: false); // the L1 table moves
        Assert.Equal(TestBatch.Filled(4096, 1), await image.ReadAsync(0, 4096));
        await image.WriteAsync(0, TestBatch.Filled(4096, 2));
        Assert.Equal(TestBatch.Filled(4096, 2), await image.ReadAsync(0, 4096));
        Assert.Equal(0, image.Grain.BatchCount);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task When_an_image_had_stopped_a_session_with_unflushed_writes_does_not_go_on_as_if_nothing_was(bool flushes)
    {
        await using ImageSilo silo = await SiloAsync();
        await silo.Pool.CreateAsync("bad", "1M", "-o", "compat=0.10"); // version 2 has no corrupt bit: it opens again
        await Damage.MisalignSecondClusterAsync(silo.Pool.File("bad.qcow2"));
        await using (ExportedImage image = await ExportedImage.OpenAsync(silo, "vm/bad"))
        {
            await image.WriteAsync(0, TestBatch.Filled(4096, 1));
            if (flushes)
                await image.FlushAsync();
            Assert.Equal(NbdError.InputOutput, (await image.RunAsync(NbdCommand.Read, 65536, new byte[512])).Error); // the image stops
            Assert.Equal(NbdError.InputOutput, (await image.RunAsync(NbdCommand.Write, 0, new byte[512])).Error);
            await using ExportedImage next = await ExportedImage.OpenAsync(silo, "vm/bad"); // and is opened again
            Assert.Equal(flushes ? NbdError.None : NbdError.InputOutput, (await image.RunAsync(NbdCommand.Read, 0, new byte[512])).Error);
        }
        await silo.Image("vm/bad").CloseAsync();
        File.Delete(silo.Pool.File("bad.qcow2"));
    }

    private static async Task<ImageSilo> SiloAsync()
    {
        ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Image("vm/disk").CreateAsync(new CreateImage { VirtualBytes = 64 << 20 });
        return silo;
    }
}

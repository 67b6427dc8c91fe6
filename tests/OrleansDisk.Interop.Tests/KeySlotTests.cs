using System.Globalization;
using System.Text;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>Key slots of LUKS that are filled and erased while the image is open; QEMU opens the image, or does not.</summary>
public sealed class KeySlotTests : IDisposable
{
    private const int InputOutputError = 5;
    private readonly TemporaryDirectory _directory = new(inMemory: true);
    private readonly string _path;

    public KeySlotTests() => _path = _directory.File("disk");

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task Passwords_come_and_go_while_the_guest_writes()
    {
        await CreateAsync("first");
        await WithImageAsync("first", async image =>
        {
            Task write = image.WriteAsync(0, Enumerable.Repeat((byte)0x51, 300_000).ToArray()).AsTask();
            await Task.WhenAll(write, AddAsync(image, "first", "second"), AddAsync(image, "first", "third", slot: 6));
            await image.ChangeKeySlotsAsync(new KeySlotChange { Activates = false, OldSecret = SecretOf("first") });
        });
        Assert.False(Opens("first"));
        Assert.True(Opens("second"));
        Assert.True(Opens("third"));
        await WithImageAsync("second", async image =>
        {
            await image.ChangeKeySlotsAsync(new KeySlotChange { Activates = false, Slot = 6 });
            byte[] read = new byte[300_000];
            await image.ReadAsync(0, read);
            Assert.Equal(-1, read.AsSpan().IndexOfAnyExcept((byte)0x51));
        });
        Assert.False(Opens("third"));
        new EncryptedDisk(_path, "second").QemuIo("read -P 0x51 0 300000");
        await Judge.OwnCheckFindsAtMostLeaksAsync(_path);
    }

    [Theory]
    [InlineData("encrypt.state=active")]
    [InlineData("encrypt.state=active,encrypt.new-secret=n,encrypt.old-secret=s")]
    [InlineData("encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=8")]
    [InlineData("encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=0")]
    [InlineData("encrypt.state=inactive")]
    [InlineData("encrypt.state=inactive,encrypt.new-secret=n")]
    [InlineData("encrypt.state=inactive,encrypt.iter-time=10,encrypt.keyslot=0")]
    [InlineData("encrypt.state=inactive,encrypt.old-secret=s")]
    [InlineData("encrypt.state=inactive,encrypt.old-secret=n")]
    [InlineData("encrypt.state=inactive,encrypt.keyslot=0")]
    [InlineData("encrypt.state=inactive,encrypt.keyslot=3")]
    [InlineData("encrypt.state=inactive,encrypt.keyslot=12")]
    [InlineData("encrypt.state=inactive,encrypt.keyslot=0,encrypt.old-secret=n")]
    public async Task What_would_lose_the_keys_or_means_nothing_is_refused_in_QEMUs_words(string options)
    {
        await CreateAsync("first");
        (int status, string theirs) = Tool.Try("qemu-img", "amend", "--object", "secret,id=s,data=first", "--object", "secret,id=n,data=new",
            "-o", options, "--image-opts", new EncryptedDisk(_path, "first").ImageOptions);
        Assert.Equal(1, status);
        string before = Judge.Fingerprint(_path);
        var values = options.Split(',').Select(option => option.Split('=')).ToDictionary(pair => pair[0]["encrypt.".Length..], pair => pair[1]);
        Secret? Named(string name) => values.GetValueOrDefault(name) switch { "s" => SecretOf("first"), "n" => SecretOf("new"), _ => null };
        await WithImageAsync("first", async image =>
        {
            Qcow2Exception refusal = await Assert.ThrowsAsync<Qcow2Exception>(() => image.ChangeKeySlotsAsync(new KeySlotChange
            {
                Activates = values["state"] == "active",
                Slot = values.TryGetValue("keyslot", out string? slot) ? int.Parse(slot, CultureInfo.InvariantCulture) : null,
                NewSecret = Named("new-secret"),
                OldSecret = Named("old-secret"),
                Secret = SecretOf("first"),
                Iterations = values.ContainsKey("iter-time") ? 1000u : null,
            }));
            Assert.Equal(theirs, $"qemu-img: {refusal.Message}\n");
        });
        Assert.Equal(before, Judge.Fingerprint(_path));
    }

    [Fact]
    public async Task All_slots_may_be_in_use_and_force_overwrites_and_erases_them()
    {
        await CreateAsync("first");
        await WithImageAsync("first", async image =>
        {
            for (int slot = 1; slot < LuksHeader.SlotCount; slot++)
                await AddAsync(image, "first", $"password {slot}");
            Qcow2Exception full = await Assert.ThrowsAsync<Qcow2Exception>(() => AddAsync(image, "first", "one more"));
            Assert.Equal("Can't add a keyslot - all keyslots are in use", full.Message);
            await image.ChangeKeySlotsAsync(new KeySlotChange
            {
                Activates = true,
                Slot = 3,
                NewSecret = SecretOf("instead"),
                Secret = SecretOf("first"),
                Iterations = 1000,
                Force = true,
            });
        });
        Assert.False(Opens("password 3"));
        Assert.True(Opens("instead"));
        Assert.True(Opens("password 7"));
        await WithImageAsync("first", async image =>
        {
            for (int slot = 0; slot < LuksHeader.SlotCount; slot++)
                await image.ChangeKeySlotsAsync(new KeySlotChange { Activates = false, Slot = slot, Force = true });
        });
        Assert.False(Opens("first"));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_change_that_stops_at_any_write_leaves_the_other_slots_as_they_were(bool activates)
    {
        await CreateAsync("first");
        await WithImageAsync("first", image => AddAsync(image, "first", "second"));
        byte[] before = File.ReadAllBytes(_path);
        for (int stopAt = 1; ; stopAt++)
        {
            int writes = 0;
            var file = MemoryFile.Load(before, new MemoryFile());
            bool failed = false;
            await Exclusive.Run(async () =>
            {
                Qcow2Image image = await Qcow2Image.OpenAsync(file, new Qcow2OpenOptions { Access = Qcow2.Io.ImageAccess.Write, Secret = SecretOf("first") });
                file.Fault = (operation, _) => operation == FileOperation.Write && ++writes == stopAt ? InputOutputError : 0;
                try
                {
                    await (activates ? AddAsync(image, "first", "third")
                        : image.ChangeKeySlotsAsync(new KeySlotChange { Activates = false, OldSecret = SecretOf("second") }));
                }
                catch (Qcow2FailedException)
                {
                    failed = true;
                }
                Assert.Equal(failed, image.HasFailed);
                await image.CloseAsync();
            });
            File.WriteAllBytes(_path, file.ToArray());
            Assert.True(Opens("first"), $"the first password is lost at write {stopAt}");
            Assert.True(activates ? Opens("second") : failed || !Opens("second"), $"the second password, at write {stopAt}");
            if (!failed)
                return;
        }
    }

    [Theory]
    [InlineData(EncryptionMethod.None, "Can't amend encryption options - encryption not present")]
    [InlineData(EncryptionMethod.Aes, "Only LUKS encryption options can be amended")]
    public async Task Images_without_slots_are_refused(EncryptionMethod method, string expected)
    {
        await CreateAsync("first", method);
        await WithImageAsync("first", async image =>
        {
            Qcow2Exception refusal = await Assert.ThrowsAsync<Qcow2Exception>(() => AddAsync(image, "first", "second"));
            Assert.Equal(expected, refusal.Message);
        });
    }

    private Task<Header> CreateAsync(string password, EncryptionMethod method = EncryptionMethod.Luks) => CreateOperation.CreateAsync(_path, new CreateOptions
    {
        VirtualBytes = 1 << 20,
        Encryption = method == EncryptionMethod.None ? null : new NewEncryption { Method = method, Secret = SecretOf(password), Iterations = 1000 },
    });

    private Task WithImageAsync(string password, Func<Qcow2Image, Task> action) => Exclusive.Run(async () =>
    {
        await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Disk.Writing(65536) with { Secret = SecretOf(password) });
        await action(image);
    });

    private static Task AddAsync(Qcow2Image image, string password, string added, int? slot = null) => image.ChangeKeySlotsAsync(new KeySlotChange
    {
        Activates = true,
        Slot = slot,
        NewSecret = SecretOf(added),
        Secret = SecretOf(password),
        Iterations = 1000,
    });

    private static Secret SecretOf(string password) => new(Encoding.UTF8.GetBytes(password));

    /// <summary>Whether QEMU opens the image with a password.</summary>
    private bool Opens(string password)
    {
        var disk = new EncryptedDisk(_path, password);
        (int status, string output) = Tool.Try("qemu-io", ["-c", "read 0 512", .. disk.Opening, disk.ImageOptions]);
        Assert.True(status == 0 || output.Contains("Invalid password", StringComparison.Ordinal), output);
        return status == 0;
    }
}

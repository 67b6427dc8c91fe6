using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Options;
using Orleans.Configuration;

namespace OrleansDisk.Grains;

/// <summary>Adds image grains to a silo.</summary>
public static class ImageGrainHosting
{
    public static ISiloBuilder AddImageGrains(this ISiloBuilder silo, Action<ImageGrainOptions> configure)
    {
        silo.Services.Configure(configure);
        silo.Services.TryAddSingleton<Pools>();
        silo.Services.TryAddSingleton<OpenImages>();
        silo.Services.AddOptions<GrainCollectionOptions>().Configure<IOptions<ImageGrainOptions>>((collection, images) =>
        {
            TimeSpan idleTime = images.Value.IdleTime;
            collection.ClassSpecificCollectionAge[typeof(ImageGrain).FullName!] = idleTime;
            if (collection.CollectionQuantum > idleTime / 4)
                collection.CollectionQuantum = idleTime / 4;
            collection.DeactivationTimeout = images.Value.CloseTime;
        });
        return silo;
    }
}

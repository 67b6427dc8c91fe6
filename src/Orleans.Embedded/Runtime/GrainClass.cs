using System.Reflection;
using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;
using Microsoft.Extensions.DependencyInjection;
using Orleans.Concurrency;
using Orleans.Configuration;

namespace Orleans.Runtime;

/// <summary>A grain class: what its attributes say, and how to make an instance.</summary>
internal sealed class GrainClass
{
    private readonly ObjectFactory _factory;

    public GrainClass(Type type, GrainCollectionOptions options)
    {
        _factory = ActivatorUtilities.CreateFactory(type, Type.EmptyTypes);
        GrainType = GrainType.Create(type.FullName!);
        IsReentrant = type.IsDefined(typeof(ReentrantAttribute));
        TimeSpan optionsAge = options.ClassSpecificCollectionAge.GetValueOrDefault(type.FullName!, options.CollectionAge);
        CollectionAge = type.IsDefined(typeof(KeepAliveAttribute))
            ? TimeSpan.MaxValue
            : type.GetCustomAttribute<CollectionAgeLimitAttribute>()?.AgeLimit ?? optionsAge;
    }

    public GrainType GrainType { get; }
    public bool IsReentrant { get; }
    public TimeSpan CollectionAge { get; }

    public IGrainBase CreateInstance(IServiceProvider services) => (IGrainBase)_factory(services, null);

    /// <summary>The one class that implements a grain interface, among the assemblies loaded or beside the program.</summary>
    /// <exception cref="ArgumentException">There is none, or more than one.</exception>
    public static Type Implementing(Type grainInterface)
    {
        Type[] found = Search(AppDomain.CurrentDomain.GetAssemblies().Where(ReferencesUs));
        if (found.Length == 0)
            found = Search(AssembliesBesideTheProgram());
        return found.Length == 1
            ? found[0]
            : throw new ArgumentException(found.Length == 0
                ? $"No grain class implements {grainInterface}; is its assembly beside the program?"
                : $"More than one grain class implements {grainInterface}: {string.Join<Type>(", ", found)}.");

        Type[] Search(IEnumerable<Assembly> assemblies) => [.. assemblies.SelectMany(assembly => assembly.GetTypes())
            .Where(type => type is { IsClass: true, IsAbstract: false } && grainInterface.IsAssignableFrom(type)
                && typeof(IGrainBase).IsAssignableFrom(type))];
    }

    // Dynamic assemblies hold proxies that are still being built.
    private static bool ReferencesUs(Assembly assembly) => !assembly.IsDynamic
        && assembly.GetReferencedAssemblies().Any(name => name.Name == typeof(GrainClass).Assembly.GetName().Name);

    // The compiler drops references that no code uses, so the assembly of the grains may be known only as a file.
    private static IEnumerable<Assembly> AssembliesBesideTheProgram()
    {
        foreach (string path in Directory.EnumerateFiles(AppContext.BaseDirectory, "*.dll"))
        {
            using var file = new PEReader(File.OpenRead(path));
            if (!file.HasMetadata)
                continue;
            MetadataReader metadata = file.GetMetadataReader();
            if (metadata.AssemblyReferences.Any(handle => metadata.StringComparer.Equals(
                metadata.GetAssemblyReference(handle).Name, typeof(GrainClass).Assembly.GetName().Name!)))
            {
                yield return Assembly.Load(new AssemblyName(Path.GetFileNameWithoutExtension(path)));
            }
        }
    }
}

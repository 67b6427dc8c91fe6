using System.Collections.Concurrent;
using System.Reflection;
using System.Runtime.CompilerServices;
using Orleans.Runtime;

namespace Orleans.Serialization;

/// <summary>No way is known to copy values of a type from caller to grain.</summary>
public sealed class CodecNotFoundException(string message) : Exception(message);

/// <summary>Copies what travels in a grain call, so that caller and grain share nothing that can change.</summary>
internal static class DeepCopy
{
    private delegate object Copier(object original, Dictionary<object, object> copies);

    private static readonly ConcurrentDictionary<Type, Copier?> s_copiers = new(); // null: shared, not copied
    private static readonly Func<object, object> s_clone =
        typeof(object).GetMethod(nameof(MemberwiseClone), BindingFlags.Instance | BindingFlags.NonPublic)!
            .CreateDelegate<Func<object, object>>();

    private static readonly HashSet<Type> s_shared =
    [
        typeof(string), typeof(decimal), typeof(DateTime), typeof(DateTimeOffset), typeof(DateOnly), typeof(TimeOnly),
        typeof(TimeSpan), typeof(Guid), typeof(Uri), typeof(Version), typeof(Half), typeof(Int128), typeof(UInt128),
        typeof(System.Numerics.BigInteger), typeof(System.Text.Rune), typeof(System.Net.IPAddress), typeof(object),
        typeof(System.Net.IPEndPoint), typeof(CancellationToken), typeof(GrainId), typeof(ActivationId), typeof(NoResult),
    ];

    /// <summary>A copy of a whole object graph; immutable parts of it are shared with the original.</summary>
    /// <exception cref="CodecNotFoundException">Something in it has no <see cref="GenerateSerializerAttribute"/>.</exception>
    public static object? Of(object? original) =>
        original is null || CopierOf(original.GetType()) is not { } copier
            ? original
            : copier(original, new Dictionary<object, object>(ReferenceEqualityComparer.Instance));

    /// <summary>Whether every value of a variable of this type can be shared.</summary>
    public static bool IsAlwaysShared(Type type)
    {
        type = Nullable.GetUnderlyingType(type) ?? type;
        return (type.IsSealed && (IsShared(type) || IsImmutable(type)))
            || (type.IsValueType && CopierOf(type) is null); // a class may contain itself, so classes are looked at when met
    }

    private static Copier? CopierOf(Type type) => s_copiers.GetOrAdd(type, static type =>
    {
        if (type.IsAssignableTo(typeof(IAddressable)) && !type.IsAssignableTo(typeof(GrainReference)))
        {
            throw new NotSupportedException($"{type} is a grain or an observer itself; pass a reference to it "
                + "(this.AsReference<T>(), or IGrainFactory.CreateObjectReference<T>).");
        }
        bool serializable = type.IsDefined(typeof(GenerateSerializerAttribute));
        if (IsShared(type) || IsImmutable(type))
            return null;
        if (type.IsArray)
            return CopyArray;
        Type? definition = type.IsGenericType ? type.GetGenericTypeDefinition() : null;
        if (definition is not null && s_generic.TryGetValue(definition, out string? method))
        {
            return typeof(DeepCopy).GetMethod(method, BindingFlags.Static | BindingFlags.NonPublic)!
                .MakeGenericMethod(type.GetGenericArguments()).CreateDelegate<Copier>();
        }
        if (serializable || definition == typeof(KeyValuePair<,>) || type.IsAssignableTo(typeof(ITuple)))
            return FieldwiseCopier(type, serializable);
        throw new CodecNotFoundException($"{type} cannot travel in a grain call: mark it [GenerateSerializer].");
    });

    private static bool IsShared(Type type) => type.IsPrimitive || type.IsEnum || s_shared.Contains(type)
        || type.IsAssignableTo(typeof(GrainReference)) || type.IsAssignableTo(typeof(Exception))
        || type.IsAssignableTo(typeof(Type));

    private static bool IsImmutable(Type type) =>
        type.IsDefined(typeof(ImmutableAttribute)) && type.IsDefined(typeof(GenerateSerializerAttribute));

    private static readonly Dictionary<Type, string> s_generic = new()
    {
        [typeof(List<>)] = nameof(CopyList),
        [typeof(Dictionary<,>)] = nameof(CopyDictionary),
        [typeof(HashSet<>)] = nameof(CopySet),
        [typeof(Memory<>)] = nameof(CopyMemory),
        [typeof(ReadOnlyMemory<>)] = nameof(CopyReadOnlyMemory),
    };

    private static object? Part(object? original, Dictionary<object, object> copies)
    {
        if (original is null || CopierOf(original.GetType()) is not { } copier)
            return original;
        if (original is ValueType)
            return copier(original, copies);
        return copies.TryGetValue(original, out object? copy) ? copy : copier(original, copies);
    }

    // A shallow clone whose fields are then replaced where they hold something that can change.
    private static Copier? FieldwiseCopier(Type type, bool serializable)
    {
        var fields = new List<FieldInfo>();
        for (Type? declaring = type; declaring is not null && declaring != typeof(object); declaring = declaring.BaseType)
            fields.AddRange(declaring.GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly));
        if (serializable && fields.Find(field => !HasId(field)) is { } lost)
            throw new CodecNotFoundException($"{type}: {lost.Name} would not travel under Orleans; give it an [Id].");
        FieldInfo[] copied = [.. fields.Where(field => !IsAlwaysShared(field.FieldType) && !Carries<ImmutableAttribute>(field))];
        if (copied.Length == 0 && type.IsValueType)
            return null;
        return (original, copies) =>
        {
            object copy = s_clone(original);
            if (!type.IsValueType)
                copies[original] = copy;
            foreach (FieldInfo field in copied)
                field.SetValue(copy, Part(field.GetValue(original), copies));
            return copy;
        };
    }

    private static bool HasId(FieldInfo field) => Carries<IdAttribute>(field)
        || PropertyOf(field) is { } property && field.DeclaringType!.GetMethod("<Clone>$") is not null
            && field.DeclaringType.GetConstructors().Any(made => made.GetParameters().Any(one => one.Name == property.Name));

    private static bool Carries<TAttribute>(FieldInfo field) where TAttribute : Attribute =>
        field.IsDefined(typeof(TAttribute)) || (PropertyOf(field)?.IsDefined(typeof(TAttribute)) ?? false);

    private static PropertyInfo? PropertyOf(FieldInfo field) => field.Name is ['<', .. var name]
        ? field.DeclaringType!.GetProperty(name[..name.IndexOf('>', StringComparison.Ordinal)],
            BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)
        : null;

    private static object CopyArray(object original, Dictionary<object, object> copies)
    {
        var copy = (Array)((Array)original).Clone();
        copies[original] = copy;
        if (IsAlwaysShared(original.GetType().GetElementType()!))
            return copy;
        if (copy.Rank > 1)
            throw new CodecNotFoundException($"{original.GetType()}: arrays of several dimensions hold immutable elements only.");
        for (int i = 0; i < copy.Length; i++)
            copy.SetValue(Part(copy.GetValue(i), copies), i);
        return copy;
    }

    private static object CopyList<T>(object original, Dictionary<object, object> copies)
    {
        var list = (List<T>)original;
        var copy = new List<T>(list.Count);
        copies[original] = copy;
        copy.AddRange(IsAlwaysShared(typeof(T)) ? list : list.Select(item => (T)Part(item, copies)!));
        return copy;
    }

    private static object CopyDictionary<TKey, TValue>(object original, Dictionary<object, object> copies) where TKey : notnull
    {
        var dictionary = (Dictionary<TKey, TValue>)original;
        var copy = new Dictionary<TKey, TValue>(dictionary.Count, dictionary.Comparer);
        copies[original] = copy;
        foreach ((TKey key, TValue value) in dictionary)
            copy.Add((TKey)Part(key, copies)!, (TValue)Part(value, copies)!);
        return copy;
    }

    private static object CopySet<T>(object original, Dictionary<object, object> copies)
    {
        var set = (HashSet<T>)original;
        var copy = new HashSet<T>(set.Count, set.Comparer);
        copies[original] = copy;
        copy.UnionWith(set.Select(item => (T)Part(item, copies)!));
        return copy;
    }

    private static object CopyMemory<T>(object original, Dictionary<object, object> copies) =>
        new Memory<T>((T[])CopyArray(((Memory<T>)original).ToArray(), copies));

    private static object CopyReadOnlyMemory<T>(object original, Dictionary<object, object> copies) =>
        new ReadOnlyMemory<T>((T[])CopyArray(((ReadOnlyMemory<T>)original).ToArray(), copies));
}

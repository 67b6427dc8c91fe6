using System.Collections.Concurrent;
using System.Reflection;
using Orleans.Concurrency;
using Orleans.Serialization;

namespace Orleans.Runtime;

/// <summary>One method of a grain interface: what is known about it before it is called.</summary>
internal abstract class GrainMethod
{
    private static readonly ConcurrentDictionary<MethodInfo, GrainMethod> s_methods = new();

    private readonly bool[] _copiedArguments;
    private readonly bool _copiesAny;
    private readonly int _cancellationIndex;

    protected GrainMethod(MethodInfo method)
    {
        Method = method;
        Invoker = MethodInvoker.Create(method);
        Interleaves = method.IsDefined(typeof(AlwaysInterleaveAttribute));
        OneWay = method.ReturnType == typeof(void) || method.IsDefined(typeof(OneWayAttribute));
        ResponseTimeout = method.GetCustomAttribute<ResponseTimeoutAttribute>()?.Timeout;
        _copiedArguments = [.. method.GetParameters().Select(parameter =>
            !parameter.IsDefined(typeof(ImmutableAttribute)) && !DeepCopy.IsAlwaysShared(parameter.ParameterType))];
        _copiesAny = _copiedArguments.Contains(true);
        _cancellationIndex = Array.FindIndex(method.GetParameters(), parameter => parameter.ParameterType == typeof(CancellationToken));
    }

    public MethodInfo Method { get; }
    public MethodInvoker Invoker { get; }
    public bool Interleaves { get; }
    public bool OneWay { get; }
    public TimeSpan? ResponseTimeout { get; }

    public static GrainMethod Of(MethodInfo method) => s_methods.GetOrAdd(method, static method =>
    {
        Type returned = method.ReturnType;
        bool carriesResult = returned.IsGenericType
            && (returned.GetGenericTypeDefinition() == typeof(Task<>) || returned.GetGenericTypeDefinition() == typeof(ValueTask<>));
        if (method.IsGenericMethod
            || !(carriesResult || returned == typeof(Task) || returned == typeof(ValueTask) || returned == typeof(void)))
        {
            throw new NotSupportedException($"{method.DeclaringType}.{method.Name}: a grain method is not generic and "
                + "returns Task, Task<T>, ValueTask, ValueTask<T> or void.");
        }
        Type result = carriesResult ? returned.GetGenericArguments()[0] : typeof(NoResult);
        return (GrainMethod)Activator.CreateInstance(typeof(GrainMethod<>).MakeGenericType(result), method)!;
    });

    /// <summary>Calls the method on the grain that <paramref name="reference"/> names.</summary>
    public abstract object? Call(GrainReference reference, object?[] arguments);

    /// <summary>What lets the caller give up waiting. The grain has it too, and ends when it sees fit.</summary>
    protected CancellationToken CancellationOf(object?[] arguments) =>
        _cancellationIndex >= 0 && arguments[_cancellationIndex] is CancellationToken token ? token : CancellationToken.None;

    protected void IsolateArguments(object?[] arguments)
    {
        for (int i = 0; _copiesAny && i < arguments.Length; i++)
        {
            if (_copiedArguments[i])
                arguments[i] = DeepCopy.Of(arguments[i]);
        }
    }
}

/// <summary>The result of a method that has none.</summary>
internal readonly struct NoResult;

internal sealed class GrainMethod<T>(MethodInfo method) : GrainMethod(method)
{
    private readonly bool _sharesResult = typeof(T) == typeof(NoResult) || DeepCopy.IsAlwaysShared(typeof(T));

    public override object? Call(GrainReference reference, object?[] arguments)
    {
        var call = new GrainCall(this, arguments);
        try
        {
            IsolateArguments(arguments);
            reference.Silo.Send(reference, call, ResponseTimeout);
        }
        catch (Exception e)
        {
            call.Fail(e);
        }
        Task<T> response = OneWay ? Task.FromResult(default(T)!) : call.Response;
        if (CancellationOf(arguments) is { CanBeCanceled: true } cancellation)
            response = response.WaitAsync(cancellation);
        Type returned = Method.ReturnType;
        return returned == typeof(void) ? null
            : !returned.IsValueType ? response
            : returned == typeof(ValueTask) ? new ValueTask(response)
            : new ValueTask<T>(response);
    }

    private sealed class GrainCall : Request
    {
        private readonly GrainMethod<T> _method;
        private readonly object?[] _arguments;
        private readonly TaskCompletionSource<T> _response = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public GrainCall(GrainMethod<T> method, object?[] arguments)
        {
            (_method, _arguments) = (method, arguments);
            Interleaves = method.Interleaves;
        }

        public Task<T> Response => _response.Task;

        public override async void Start()
        {
            try
            {
                T result = default!;
                switch (_method.Invoker.Invoke(Target.GrainInstance, _arguments.AsSpan()))
                {
                    case Task<T> task: result = await task; break;
                    case Task task: await task; break;
                    case ValueTask<T> task: result = await task; break;
                    case ValueTask task: await task; break;
                    case null when _method.Method.ReturnType == typeof(void): break;
                    case var other: throw new InvalidOperationException($"{_method.Method.Name} returned {other ?? "null"}.");
                }
                if (!_method._sharesResult)
                    result = (T)DeepCopy.Of(result)!;
                Target.End(this);
                _response.TrySetResult(result);
            }
            catch (Exception e)
            {
                Target.End(this);
                Fail(e);
            }
        }

        public override void Fail(Exception exception)
        {
            if (_response.TrySetException(exception))
                _ = _response.Task.Exception; // observed here, should the caller not look
        }
    }
}

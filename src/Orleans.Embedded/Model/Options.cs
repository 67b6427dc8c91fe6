namespace Orleans.Configuration;

/// <summary>How calls are delivered.</summary>
public class SiloMessagingOptions
{
    /// <summary>A call that has not ended by then fails with a <see cref="TimeoutException"/>; the grain goes on.</summary>
    public TimeSpan ResponseTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How often a call that meets an ending activation is passed on to the next one.</summary>
    public int MaxForwardCount { get; set; } = 2;
}

/// <summary>How long activations stay, and how long they may take to come and go.</summary>
public class GrainCollectionOptions
{
    /// <summary>Idle activations are looked for this often.</summary>
    public TimeSpan CollectionQuantum { get; set; } = TimeSpan.FromMinutes(1);

    /// <summary>An activation idle for longer is deactivated. It is longer than <see cref="CollectionQuantum"/>.</summary>
    public TimeSpan CollectionAge { get; set; } = TimeSpan.FromMinutes(15);

    /// <summary>The collection age of single grain classes, by the class's full name.</summary>
    public Dictionary<string, TimeSpan> ClassSpecificCollectionAge { get; set; } = [];

    /// <summary>After this OnActivateAsync is given up.</summary>
    public TimeSpan ActivationTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>After this OnDeactivateAsync is given up.</summary>
    public TimeSpan DeactivationTimeout { get; set; } = TimeSpan.FromSeconds(30);
}

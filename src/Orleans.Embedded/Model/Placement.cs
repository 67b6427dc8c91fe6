namespace Orleans.Placement;

/// <summary>Activate where the caller is. In one process that is so anyway.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class PreferLocalPlacementAttribute : Attribute;

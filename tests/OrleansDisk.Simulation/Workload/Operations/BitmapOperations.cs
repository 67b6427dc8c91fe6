using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Simulation.Workload.Operations;

/// <summary>A bitmap is made, changed or removed.</summary>
internal sealed record BitmapChangeOperation(BitmapAction Action, string Name, string Source, int GranularityBits) : IOperation
{
    private const int BitmapCount = 3;

    public Timing Timing => Timing.Alone;

    public static BitmapChangeOperation Draw(OperationDraw draw) => new((BitmapAction)draw.Random.Next(6),
        $"b{draw.Random.Next(BitmapCount)}", $"b{draw.Random.Next(BitmapCount)}", draw.Random.Next(9, 14));

    public async Task RunAsync(World world)
    {
        Model.BitmapModel model = world.Model.Bitmaps;
        if (world.Version < 3 || model.IsUnsure || world.Image.HasFailed)
            return;
        bool exists = model.Names.Contains(Name);
        BitmapAction action = !exists ? BitmapAction.Add : model.IsInconsistent(Name) || Action == BitmapAction.Add ? BitmapAction.Remove : Action;
        if (action == BitmapAction.Merge && (!model.Names.Contains(Source) || model.IsInconsistent(Source)))
            return;
        model.UnderWay = Name;
        if (action == BitmapAction.Clear)
            model.Clear(Name);
        var operation = new BitmapOperation(action) { GranularityBytes = 1L << GranularityBits, SourceName = Source };
        bool succeeded = await world.TryChangeAsync(0, image => new ValueTask(operation.RunAsync(image, Name)));
        if (succeeded)
            Note(model, action);
        else
            model.IsUnsure = true;
        model.UnderWay = null;
    }

    private void Note(Model.BitmapModel model, BitmapAction action)
    {
        switch (action)
        {
            case BitmapAction.Add:
                model.Add(Name, isEnabled: true);
                break;
            case BitmapAction.Remove:
                model.Remove(Name);
                break;
            case BitmapAction.Merge:
                model.Merge(Name, Source);
                break;
            case BitmapAction.Enable or BitmapAction.Disable:
                model.Enable(Name, action == BitmapAction.Enable);
                break;
        }
    }
}

/// <summary>The bitmaps are read while others write.</summary>
internal sealed record BitmapReadOperation : IOperation
{
    public async Task RunAsync(World world)
    {
        if (!world.Model.Bitmaps.IsUnsure)
            await world.TryAsync(image => new ValueTask(world.Model.Bitmaps.Clone().JudgeAsync(image, isSizeUnsure: false)));
    }
}

namespace OrleansDisk.Qcow2.Metadata;

/// <content>A view of the metadata that stands still while guests go on.</content>
internal sealed partial class ImageMetadata
{
    /// <summary>Begins a view of the image as it is on disk. It is settled, the caller has the gate alone, and there is no other view.</summary>
    public SettledView BeginView()
    {
        Invariant.Assert(Order.View is null, "one view of an image at a time");
        var view = new SettledView(File);
        Order.View = view;
        Freed.IsHeld = true;
        return view;
    }

    /// <summary>Whether a view has not ended yet.</summary>
    public bool IsCurrent(SettledView view) => Order.View == view;

    /// <summary>Ends the view, if there is one, before the image changes as a whole: then freed clusters must come free.</summary>
    public async ValueTask EndViewAsync()
    {
        if (Order.View is not { } view)
            return;
        await view.EndAsync();
        if (!IsCurrent(view))
            return;
        Order.View = null;
        Freed.IsHeld = false;
        Release();
    }
}

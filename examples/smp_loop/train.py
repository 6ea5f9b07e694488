"""segmentation-models-pytorch in a loop as its examples have it, with the trial's loss in place of
`smp.losses.DiceLoss`, and its own metrics."""

import segmentation_models_pytorch as smp
import torch
from torch.utils.data import DataLoader, TensorDataset

from examples.plain_torch.train import CLASSES, draw_scenes
from study.trials import TrialContext


@torch.no_grad()
def evaluate(model, loader, device):
    model.eval()
    outputs = []
    for images, labels in loader:
        predicted = model(images.to(device)).argmax(1).cpu()
        outputs.append(
            smp.metrics.get_stats(
                predicted, labels, mode="multiclass", num_classes=len(CLASSES), ignore_index=255
            )
        )
    # (C,), over all images: a mean over images would count the absent classes of each
    tp, fp, fn, tn = (torch.cat(one).sum(0) for one in zip(*outputs, strict=True))
    ious = smp.metrics.iou_score(tp, fp, fn, tn, reduction="none")
    named = zip(CLASSES, ious, strict=True)
    return {"miou": ious.mean(), **{f"iou/{name}": iou for name, iou in named}}


def train(context: TrialContext, encoder="tu-mobilenetv3_small_050.lamb_in1k"):
    torch.manual_seed(context.seed)
    model = smp.Unet(
        encoder, encoder_weights=None, encoder_depth=3, decoder_channels=(24, 16, 8),
        classes=len(CLASSES),
    ).to(context.device)  # fmt: skip
    loss_fn = context.build_loss()  # smp.losses.DiceLoss("multiclass", ignore_index=255)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3 * context.lr_scale)
    train_loader = DataLoader(TensorDataset(*draw_scenes(1, 48)), batch_size=8, shuffle=True)
    val_loader = DataLoader(TensorDataset(*draw_scenes(2, 24)), batch_size=8)
    test_loader = DataLoader(TensorDataset(*draw_scenes(3, 24)), batch_size=8)

    for epoch in range(1, context.num_epochs + 1):
        model.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = loss_fn(model(images.to(context.device)), labels.to(context.device))
            loss.backward()
            optimizer.step()
        found = evaluate(model, val_loader, context.device)
        values = {f"val/{name}": value for name, value in found.items()}
        if context.is_confirmation and epoch == context.num_epochs:
            found = evaluate(model, test_loader, context.device)
            values |= {f"test/{name}": value for name, value in found.items()}
        if not context.report(epoch, values):
            return

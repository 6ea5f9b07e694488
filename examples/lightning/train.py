"""A LightningModule in a study: the callback reports, and the trial's loss trains."""

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset

from examples.plain_torch.train import CLASSES, SmallNet, draw_scenes
from study.adapters.lightning import StudyCallback
from study.trials import TrialContext


class Segmenter(LightningModule):
    def __init__(self, loss, lr):
        super().__init__()
        self.network, self.loss, self.lr = SmallNet(len(CLASSES)), loss, lr
        self.counts = None  # the callback puts new metrics here for each pass

    def training_step(self, batch, index):
        images, labels = batch
        loss = self.loss(self.network(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        images, labels = batch
        self.counts.update(self.network(images), labels)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def loader(seed, count, shuffle=False):
    return DataLoader(TensorDataset(*draw_scenes(seed, count)), batch_size=8, shuffle=shuffle)


def train(context: TrialContext):
    seed_everything(context.seed % 2**32, verbose=False)
    model = Segmenter(context.build_loss(), lr=0.01 * context.lr_scale)
    names = {"val": "counts", "test": "counts", "train/loss": "loss"}
    callback = StudyCallback(context, names)
    trainer = Trainer(
        max_epochs=context.num_epochs,
        accelerator=context.device.partition(":")[0],
        devices=1,
        callbacks=[callback],
        default_root_dir=context.folder,
        logger=False,
        enable_checkpointing=False,  # the callback sees to it
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loaders = loader(1, 48, shuffle=True), loader(2, 24)
    trainer.fit(model, *loaders, ckpt_path=callback.resume())
    if context.is_confirmation:
        trainer.test(model, loader(3, 24), verbose=False)

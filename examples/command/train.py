"""Train a small network on drawn street scenes: python train.py --epochs 6"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from study.losses import build_loss

CLASSES = ["sky", "road", "car", "sign"]


def draw_scenes(seed, count, height=32, width=48):
    """Noisy pictures of a road with cars and, in every second one, a small sign."""
    generator = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    labels = torch.zeros(count, height, width, dtype=torch.long)
    for index, label in enumerate(labels):
        horizon = number(height // 3, height // 2)
        label[horizon:] = 1
        for _ in range(2):
            row, column = number(horizon, height - 6), number(0, width - 9)
            label[row : row + 5, column : column + 8] = 2
        if index % 2:
            row, column = number(2, horizon - 4), number(0, width - 3)
            label[row : row + 4, column : column + 2] = 3
        label[-1] = 255  # the bonnet of the car that films
    colours = torch.tensor([[0.5, 0.7, 0.9], [0.4, 0.4, 0.4], [0.7, 0.2, 0.3], [0.8, 0.7, 0.3]])
    images = colours[labels.clamp(max=3)].permute(0, 3, 1, 2)
    return images + 0.2 * torch.randn(images.shape, generator=generator), labels


class SmallNet(nn.Module):
    def __init__(self, num_classes, width=12):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(3 * width, num_classes, 1)

    def forward(self, images):
        fine = self.first(images)
        coarse = F.interpolate(self.deep(self.down(fine)), size=fine.shape[2:], mode="bilinear")
        return self.head(torch.cat([fine, coarse], dim=1))


@torch.no_grad()
def evaluate(model, loader, device):
    model.eval()
    confusion = torch.zeros(len(CLASSES), len(CLASSES))
    for images, labels in loader:
        logits, labels = model(images.to(device)), labels.to(device)
        valid = labels != 255
        pairs = labels[valid] * len(CLASSES) + logits.argmax(1)[valid]
        confusion += torch.bincount(pairs, minlength=len(CLASSES) ** 2).reshape_as(confusion).cpu()
    hits = confusion.diag()
    ious = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    return ious.mean().item()


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--loss", type=Path, required=True, help="YAML, as a study writes it")
    parser.add_argument("--lr-scale", type=float, default=1.0)
    parser.add_argument("--test", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("model.pt"))
    return parser.parse_args()


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    train_loader = DataLoader(
        TensorDataset(*draw_scenes(1, 48)), batch_size=args.batch_size, shuffle=True
    )
    val_loader = DataLoader(TensorDataset(*draw_scenes(2, 24)), batch_size=args.batch_size)
    test_loader = DataLoader(TensorDataset(*draw_scenes(3, 24)), batch_size=args.batch_size)

    model = SmallNet(len(CLASSES)).to(args.device)
    labels = train_loader.dataset.tensors[1]
    class_counts = torch.bincount(labels[labels != 255], minlength=len(CLASSES))
    loss = yaml.safe_load(args.loss.read_text())
    criterion = build_loss(loss, num_classes=len(CLASSES), class_counts=class_counts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr * args.lr_scale)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)

    for epoch in range(1, args.epochs + 1):
        model.train()
        total = 0.0
        for images, labels in train_loader:
            images, labels = images.to(args.device), labels.to(args.device)
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        scheduler.step()
        miou = evaluate(model, val_loader, args.device)
        print(f"epoch {epoch}: loss {total / len(train_loader):.3f}, val mIoU {miou:.3f}")
        report = {"epoch": epoch, "train/loss": total / len(train_loader), "val/miou": miou}
        if args.test and epoch == args.epochs:
            report["test/miou"] = evaluate(model, test_loader, args.device)
        print(json.dumps(report), flush=True)

    torch.save(model.state_dict(), args.out)
    print(f"test mIoU {evaluate(model, test_loader, args.device):.3f}")


if __name__ == "__main__":
    main()

"""The training loop of torchvision's reference for classification, shortened.

    python FILE DIR

DIR has the folders train and val, each with one folder of photographs per class.
"""

import argparse
from pathlib import Path

import torch
from torchvision import datasets
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_data(folder, train):
    sizes = [v2.RandomResizedCrop(32), v2.RandomHorizontalFlip()] if train else [v2.Resize((32, 32))]
    steps = [*sizes, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    dataset = datasets.ImageFolder(folder, v2.Compose(steps))
    return torch.utils.data.DataLoader(dataset, 8, shuffle=train, num_workers=2)


def log_every(data_loader, print_freq, header):
    for step, batch in enumerate(data_loader):
        yield batch
        if step % print_freq == 0:
            print(f"{header} [{step}/{len(data_loader)}]")


def train_one_epoch(model, criterion, optimizer, data_loader, device, epoch):
    model.train()
    for image, target in log_every(data_loader, 1, f"Epoch: [{epoch}]"):
        image, target = image.to(device), target.to(device)
        output = model(image)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def evaluate(model, criterion, data_loader, device):
    model.eval()
    losses, correct, count = 0.0, 0, 0
    with torch.inference_mode():
        for image, target in log_every(data_loader, 100, "Test:"):
            image, target = image.to(device), target.to(device)
            output = model(image)
            losses += criterion(output, target).item() * len(target)
            correct += (output.argmax(1) == target).sum().item()
            count += len(target)
    print(f"Test: Acc@1 {correct / count:.3f} Loss {losses / count:.3f}, {count} photographs")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_path", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    data_loader = load_data(args.data_path / "train", train=True)
    data_loader_test = load_data(args.data_path / "val", train=False)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, len(list((args.data_path / "train").iterdir()))),
    ).to(args.device)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for epoch in range(args.epochs):
        train_one_epoch(model, criterion, optimizer, data_loader, args.device, epoch)
        evaluate(model, criterion, data_loader_test, args.device)


if __name__ == "__main__":
    main()

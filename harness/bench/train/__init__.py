"""How long a training step takes, what it spends its time on, and how that compares with open_clip's own trainer."""

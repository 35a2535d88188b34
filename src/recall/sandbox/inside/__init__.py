"""What runs inside: the zygote, its children and their walls. It imports nothing of `recall` beyond its neighbours."""

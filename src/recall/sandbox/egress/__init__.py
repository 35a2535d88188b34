"""What tools may reach by network: rules, and the broker that keeps them."""

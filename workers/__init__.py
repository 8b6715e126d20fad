"""The GPU side: takes jobs from the queue and draws them."""

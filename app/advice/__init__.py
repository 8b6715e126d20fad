"""What a request will not do as its author may think. Pure rules on a job, its model's card and its tokens."""

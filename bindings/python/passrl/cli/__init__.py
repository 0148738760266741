"""The command line: a file of rollouts in, advantages, a table and a picture out."""

"""What `--help` teaches below the options. `\\b` keeps click from filling a paragraph."""
_EXAMPLE = "bindings/python/examples/arithmetic_rollouts.jsonl"

TOP = f"""
\b
A first look, with the sample of the repository:
  passrl shape {_EXAMPLE}
  passrl compare {_EXAMPLE} --presets pass,grpo_process
"""

_LINE = """
\b
FILE is .jsonl, .jsonl.gz, or - for standard input; one JSON object a rollout:
  {"group": "q1", "sample": 0, "len": 12, "step_end": [5, 12], "step_score": [1, -0.5], "outcome": 1, "format": 1}
  group        the prompt's number or name; rollouts of a group lie together in the file
  sample       the rollout's number or name in its group (default: counted)
  len          tokens of the rollout
  step_end     token offset after each step's last token, with
  step_score   the process reward of each step; and, where not every token is in a step,
  step_begin   offset of each step's first token: tokens between steps (tool output) are out of scope
  outcome, format, format_ok   rewards of the rollout, and whether its format is right (default: format is not 0)
Instead of step_score: signal, a value a token; or logp_policy and logp_teacher (and logp_base), one a token, which --kind kl
uses where both are there. Read by the presets that ask for them, with logp_policy where log-probabilities are compared:
  values, token_rewards, bootstrap   one a token, one a token, one a rollout (GAE)
  logp_reference, logp_behavior      one a token (KL in the reward; V-trace)
  baseline                           one a rollout (center = given)
  step_group                         one a step: the number of its state (GiGPO)
  sum_pi_squared, token_ratio        one a token (token_baseline)
tokens, the text of each token, is shown in pictures. Other keys are passed over. Every line has the keys of the first; a bad
line is refused by its number and nothing is written.
"""

_MEMORY = """
\b
Memory: the file is read in batches of whole groups (--batch-tokens), so it may be larger than memory. A group that comes back
after its batch is refused; sort the file by group, or give --whole-file. Where statistics of all groups are asked for (whiten,
center = batch, ...) the file is read several times. Batches, --whole-file and --threads change no bit of the results.
"""

SHAPE = f"""
\b
Examples:
  passrl shape rollouts.jsonl --out advantages.npz --plot credit.png
  passrl shape rollouts.jsonl.gz --preset grpo_process --set whiten=tokens --out advantages.parquet
  passrl shape rollouts.jsonl --kind kl --set k=0.5 --out advantages.jsonl --quiet
{_LINE}
\b
--out writes, of all rollouts in the file's order:
  .npz      advantages [N], cu_seqlens [R+1], group, sample, path_scores, num_chunks [R], chunk_offsets [R+1], chunk_ends, chunk_values [C]
  .jsonl    an object a rollout: group, sample, advantages, path_score, num_chunks
  .parquet  the same as columns (pip install pyarrow)
{_MEMORY}"""

COMPARE = f"""
\b
Examples:
  passrl compare rollouts.jsonl --presets pass,grpo_process,grpo_pooled --plot compare.png
  passrl compare rollouts.jsonl --presets pass,pass:k=0,pass:k=0.7,gamma=0.95 --out compare.csv
\b
A configuration is a preset's name, or name:key=value,key=value. Of each, over the tokens in scope:
  mean |A|, the share of tokens with A = 0, dead groups (all their A are 0)
  against the first: tokens with the same sign (of those where either A is not 0), correlation, largest difference
--out has them for every group too: .json, or .csv and .parquet with a row a group and configuration, and rows without a group over all.
{_LINE}{_MEMORY}"""

DESCRIBE = """
\b
Examples:
  passrl describe --preset grpo_pooled
  passrl describe --preset pass --set whiten=tokens --rollouts 2048 --groups 128 --rollout-tokens 6144
  passrl describe rollouts.jsonl --kind kl
"""

PRESETS = """
\b
Examples:
  passrl presets
  passrl presets verl
  passrl presets grpo_process
\b
Use one by its name, and change any field:
  passrl shape rollouts.jsonl --preset grpo_process --set k=0.7
"""

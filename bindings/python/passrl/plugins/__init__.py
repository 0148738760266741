"""Plug-ins of RL frameworks, a file a framework: each turns what the framework's hook is given into one `passrl.shape` call.

Nothing here is imported by `import passrl`; a file imports its framework (and torch) when it is imported itself. docs/plugins.md says how each is
switched on. `settings` reads a configuration from text, `records` the process rewards of a rollout: both are the same for every framework.
"""

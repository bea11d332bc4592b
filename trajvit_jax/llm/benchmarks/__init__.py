"""VideoQA benchmarks: questions from the public files, prompts, and scores of answers.

Nothing here needs JAX. Where a module says "as lmms-eval", release 0.7.3 of
github.com/EvolvingLMMs-Lab/lmms-eval is meant, whose tasks the paper's §4.3 follows.
"""

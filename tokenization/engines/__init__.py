"""Where work is done: in this process, in processes of this machine, or on a Ray cluster.

`crew` hands items to workers and decides what happens when one dies or takes too long; `inline`,
`local` and `ray_actors` are the engines that give it workers.
"""

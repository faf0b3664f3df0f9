"""What this host computes on: its cores, its GPUs, their memory, and what their errors mean.

cores.py, gpus.py    what is there, asked by the supervisor, which never loads torch
memory.py            free and total bytes, of the host and as values
faults.py            an error of a device: a smaller batch, a new process, or a device to fence off
accelerator.py       the seam between a torch model and its device, in the child
"""

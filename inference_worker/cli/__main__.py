"""python -m inference_worker.cli"""

from inference_worker.cli import main

main()

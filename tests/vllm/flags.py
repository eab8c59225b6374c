"""Lets vLLM's own parser read the commands of `judges.serving`; runs inside the vLLM environment.

Reads a JSON list of commands from the standard input and writes what the parser made of each.
"""

import json
import sys

from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser

KEYS = ("model_tag", "revision", "served_model_name", "max_model_len", "generation_config", "trust_remote_code")

parser = FlexibleArgumentParser()
ServeSubcommand().subparser_init(parser.add_subparsers())
read = [parser.parse_args(argv[1:]) for argv in json.load(sys.stdin)]
print(json.dumps([{key: getattr(one, key) for key in KEYS} | {"limit": one.limit_mm_per_prompt} for one in read]))

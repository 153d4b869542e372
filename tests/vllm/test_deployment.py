"""What the compose file tells vLLM is something that vLLM understands."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.vllm

COMPOSE = Path(__file__).parents[2] / "deployments" / "compose.yaml"
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

read = make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[1:])
names = ("model_tag", "port", "data_parallel_size", "max_num_seqs", "max_model_len", "enable_prefix_caching")
print(json.dumps({name: getattr(read, name) for name in names}))
"""


def test_vllm_reads_the_command_of_the_compose_file(vllm_python, environment):
    command = yaml.safe_load(COMPOSE.read_text())["services"]["vllm"]["command"]

    done = subprocess.run(
        [vllm_python, "-c", PARSE, *command], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    assert read == {
        "model_tag": command[0],
        "port": 8000,
        "data_parallel_size": 7,
        "max_num_seqs": 256,
        "max_model_len": 32768,
        "enable_prefix_caching": True,
    }

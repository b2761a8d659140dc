"""Check a cluster and name the remedy of each fault: versions, GPUs, store, disk, memory, clocks and decoding on every node.

    python -m jobs.doctor s3://bucket/store                      the cluster of RAY_ADDRESS, else this machine
    python -m jobs.submit doctor s3://bucket/store --address …   from outside

Exit code 1 if any finding is an error; 0 for warnings only.
"""

import argparse
import sys

from rich.table import Table

from engine.cluster.checks import Finding, check_cluster
from engine.cluster.probe import probe
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.report.console import Console
from engine.report.table import WIDTH
from engine.settings.cluster import ClusterSettings
from jobs import cli


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store that runs will use")
    parser.add_argument("--address", help="Ray cluster (default: RAY_ADDRESS, else this machine)")
    arguments = parser.parse_args()
    with connect(ClusterSettings(address=arguments.address)):
        findings = check_cluster(*probe(Store(arguments.store)))
    print_findings(findings)
    if any(finding.level == "error" for finding in findings):
        sys.exit(1)


def print_findings(findings: list[Finding]) -> None:
    """Print the findings, most severe first, each with its remedy."""
    table = Table(title="cluster", title_justify="left")
    for column in ("", "check", "node", "found", "remedy"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(finding.level, finding.what, finding.node or "all nodes", finding.message, finding.remedy)
    Console(width=max(WIDTH, Console().width)).print(table)


if __name__ == "__main__":
    cli.run(main)

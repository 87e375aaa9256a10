"""The pipeline: four entry points, and one package per concern behind them."""

from stages.common.cli import handle_ctrl_c

handle_ctrl_c()

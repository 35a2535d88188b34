"""Measuring multi-hop question answering: methods, measures, intervals, a judge, and runs side by side."""

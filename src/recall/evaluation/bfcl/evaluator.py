"""What runs `bfcl evaluate` in the checkers' own environment, on the results of a model that it does not know.

Started as a script with the folders of results and of scores, the model's folder, and the categories; it imports
nothing of ReCall. The leaderboard names its models in a module that imports the software of every vendor; here another
stands in for it, with one model, whose handler is the leaderboard's own for servers of OpenAI's completions.
"""

import os
import sys
import tempfile
import types


def main() -> None:
    """Evaluate."""
    results, scores, model, *categories = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="recall-bfcl-") as own:
        os.environ |= {"BFCL_PROJECT_ROOT": own, "OPENAI_API_KEY": "none is needed"}
        config = types.ModuleType("bfcl_eval.constants.model_config")
        known: dict[str, object] = {}
        config.__dict__["MODEL_CONFIG_MAPPING"] = known
        sys.modules["bfcl_eval.constants.model_config"] = config
        from bfcl_eval.eval_checker import eval_runner
        from bfcl_eval.model_handler.api_inference.openai_completion import OpenAICompletionsHandler

        known[model] = types.SimpleNamespace(
            model_name=model,
            display_name=model,
            url="",
            org="",
            license="",
            model_handler=OpenAICompletionsHandler,
            input_price=None,
            output_price=None,
            is_fc_model=True,
            underscore_to_dot=True,
        )
        eval_runner.main([model], categories, results, scores, partial_eval=True)


if __name__ == "__main__":
    main()

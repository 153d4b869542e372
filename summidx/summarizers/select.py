"""Which summariser the settings mean. The doors that its adapters are open only when they are chosen."""

from summidx.settings import LLMSettings, Provider
from summidx.summarizers import ServedModel, Summarizer
from summidx.summarizers.extractive import ExtractiveSummarizer


def probe_model(settings: LLMSettings) -> ServedModel | None:
    """Find out which model the settings mean: from its server, or from its files; None where there is no model.

    Raises:
        UsageError: no model or no server is named, or vLLM is not installed.
        UnknownModel: the server does not serve it (the message names what it serves), or it is not on this machine.
        Unauthorised: the server refuses the key.
        ServerFault: the server does not answer.
    """
    match settings.provider:
        case Provider.EXTRACTIVE:
            return None
        case Provider.VLLM:
            from summidx.summarizers.vllm_local.local_model import find_local_model

            return find_local_model(settings)
        case Provider.OPENAI:
            from summidx.summarizers import openai_compatible

            return openai_compatible.probe_model(settings)


def make_summarizer(settings: LLMSettings, served_model: ServedModel | None) -> Summarizer:
    """Make the summariser that `settings.provider` names; no connection is made and no model is loaded yet.

    Args:
        settings: the LLM and how it is called.
        served_model: what `probe_model` answered; it is part of the summariser's identity.

    Raises:
        UsageError: settings do not fit together.
        UnknownModel: `served_model` is None, and the model is not on this machine.
    """
    match settings.provider:
        case Provider.EXTRACTIVE:
            return ExtractiveSummarizer()
        case Provider.VLLM:
            from summidx.summarizers.vllm_local import VLLMSummarizer

            return VLLMSummarizer(settings, served_model)
        case Provider.OPENAI:
            from summidx.summarizers.openai_compatible import OpenAICompatibleSummarizer

            return OpenAICompatibleSummarizer(settings, served_model)

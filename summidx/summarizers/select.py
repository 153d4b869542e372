"""Which summariser the settings mean. The doors that its adapters are open only when they are chosen."""

from summidx.settings import LLMSettings, Provider
from summidx.summarizers import ServedModel, Summarizer
from summidx.summarizers.extractive import ExtractiveSummarizer


def probe_model(settings: LLMSettings) -> ServedModel | None:
    """Ask the server which model it serves under the chosen name; None where no server is used.

    Raises:
        UsageError: no model or no server is named.
        UnknownModel: the server does not serve it; the message names what it serves.
        Unauthorised: the server refuses the key.
        ServerFault: the server does not answer.
    """
    if settings.provider is Provider.EXTRACTIVE:
        return None
    from summidx.summarizers import openai_compatible

    return openai_compatible.probe_model(settings)


def make_summarizer(settings: LLMSettings, served_model: ServedModel | None) -> Summarizer:
    """Make the summariser that `settings.provider` names; no connection is made yet.

    Args:
        settings: the LLM and how it is called.
        served_model: what `probe_model` answered; it is part of the summariser's identity.

    Raises:
        UsageError: settings do not fit together.
    """
    if settings.provider is Provider.EXTRACTIVE:
        return ExtractiveSummarizer()
    from summidx.summarizers.openai_compatible import OpenAICompatibleSummarizer

    return OpenAICompatibleSummarizer(settings, served_model)

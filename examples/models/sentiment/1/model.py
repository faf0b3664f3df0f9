"""Sentiment of English text by VADER."""

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from inference_worker import Model

SCORES = {"compound": "compound", "positive": "pos", "neutral": "neu", "negative": "neg"}


class Sentiment(Model):
    def load(self, context):
        self._analyzer = SentimentIntensityAnalyzer()

    def infer(self, batch):
        scores = [self._analyzer.polarity_scores(_text(one)) for one in batch["text"]]
        return {name: [score[key] for score in scores] for name, key in SCORES.items()}


def _text(one):
    """Clients send strings, or their UTF-8 bytes."""
    return one.decode() if isinstance(one, bytes) else one

"""What the report explains, in the same words on the page and in the Markdown."""

from finetune_monitor.stats.estimate import shown
from finetune_monitor.studies.agreement.evaluators import MODEL, NAIVE
from finetune_monitor.studies.agreement.study import Study
from finetune_monitor.studies.agreement_report.tables import histograms
from finetune_monitor.studies.agreement_report.verdicts import MARGIN, alternative_sentence

TITLE = "Do the scores agree with people?"

FOLDS = (
    "In each fold one labeler is held out, and the model sits in their seat: thresholds are fitted to the other "
    "labelers on images of other persons (other prompts and seeds, or other images, where there are no two persons). "
    "Spearman is that of the continuous score, the rest of the stars. G is never to be read without G*."
)
GRADES = (
    "G* of each labeler against the mean of the others, and of the model, a constant and the model's stars shuffled in "
    "their seats, mean over the folds by their numbers of labels. 1 is the same score for every image, 0 agreement by "
    "chance. G stands beside it because it "
    "is the article's own; alone it misleads, as the constant's shows."
)
SQUEEZED = (
    "Least cost squeezes the extremes: where scores and labels agree imperfectly, a star near the middle costs less, "
    "so 1 and 5 tend to be given less often than by people. Thresholds that match people's shares do not, and cost "
    "more."
)
ALTERNATIVE = (
    "For each labeler and image: is the model at least as near to the other labelers' labels as this labeler is (root "
    "mean square)? It passes where it may replace half of the labelers or more, at a margin epsilon that says how much "
    "worse it may be because it is cheaper: 0.1 where it stands in for a crowd, 0.15 for skilled people, 0.2 for "
    "experts. Passing means that the model is a fair choice beside hiring one more such labeler; it does not mean that "
    "it agrees with people, so the constant stands beside it. What is found for each labeler stands in their table."
)
NO_TEST = (
    "The alternative annotator test was not done: it takes three labelers who share thirty images or more with others."
)
NO_STARS = "No stars, so this part is left out: "

READING = {
    "Brackets": "95 % bootstrap intervals: persons are drawn, then images of each, which errs to the wide side where "
    "persons differ little; where there are no two persons, prompts with their seeds, or images. Thresholds are held "
    "fixed in it. Intervals over fewer than about five persons are too narrow, and none knows of other labelers or of "
    "another training run. — is what cannot be computed.",
    "Missing scores": "An image without a score, such as one without a face, is compared with nothing: all that stands "
    "side by side is measured on the same images.",
    "Reconstruction": "The formulas in appendix B of the article that this follows, How good is your model?, are lost; "
    "the definitions of grades, buckets and folds here are a reconstruction.",
    "kappa": "Cohen's kappa with quadratic weights (Cohen 1968): 1 the same labels, 0 agreement by chance.",
    "Krippendorff's alpha": "Agreement of all labelers at once, for ordinal labels and with gaps (Krippendorff 2011): "
    "1 full agreement, 0 chance.",
    "MAE, exact, within 1": "Mean absolute error in steps of the scale; share of the images with the same label; "
    "share with one step of difference at most.",
    "G": "The evaluator's grade: 1 less the mean distance of scores 0 to 1 from the mean of the others. Who always "
    "says 3 gets a high one.",
    "G*": "The same corrected for chance: 1 less the distance over that of unrelated images; with power 2 it is the "
    "concordance coefficient (Lin 1989).",
    "Spearman, Pearson, Kendall": "Rank and linear correlation, and tau-b, which counts pairs in the same order.",
    "Constant, and model shuffled": "The one label that costs least; and the model's own stars on other images, which "
    "is what its shares of each star alone are worth. What does not beat them knows nothing of an image.",
    "Naive fold": "Thresholds fitted on the very images that they are tested on. That leaks, and flatters the model.",
    "Alternative annotator test": "Calderon et al. 2025, arXiv 2501.10970.",
    "The verdict": "Better and worse mean that the interval of the difference on the same images leaves out 0; about "
    f"as well, that all of it lies within {MARGIN:g} of 0. Kappa is compared with that of another labeler, the mean "
    "absolute error with that of a constant.",
}


def leakage(study: Study) -> str:
    """How much the naive fold flatters; empty without stars."""
    if study.refused:
        return ""
    clean, naive = (study.mean.against_others[name]["corrected"] for name in (MODEL, NAIVE))
    return (
        f"The naive fold fits thresholds on the images that it tests on (leakage): it flatters. Here its G* is "
        f"{shown(naive, '.2f')} where the clean one is {shown(clean, '.2f')}; only the clean one counts."
    )


def alternative(study: Study) -> str:
    """What was found, and what it means; or why it was not done."""
    return f"{alternative_sentence(study)} {ALTERNATIVE}" if study.alternative else NO_TEST


def squeeze(study: Study) -> str:
    """Why the histograms differ, with the shares of 1 and 5 in them."""
    people, cheapest, matched = (100 * (found[0] + found[-1]) for found in histograms(study).values())
    return (
        f"{SQUEEZED} Here {people:.0f} % of people's labels are 1 or 5, of the stars {cheapest:.0f} % by least cost "
        f"and {matched:.0f} % by people's shares."
    )

"""The explanations in the report, with the same wording on the page and in the Markdown."""

from finetune_monitor.stats.estimate import shown
from finetune_monitor.studies.agreement.evaluators import MODEL, NAIVE
from finetune_monitor.studies.agreement.study import Study
from finetune_monitor.studies.agreement_report.tables import histograms
from finetune_monitor.studies.agreement_report.verdicts import MARGIN, alternative_sentence

TITLE = "Do the scores agree with people?"

FOLDS = (
    "In each fold, one labeler is held out and the model takes their place: thresholds are fitted to the other "
    "labelers on images of other people (other prompts and seeds, or other images, if there are not two people). "
    "Spearman is computed from the continuous score, everything else from the stars. Never read G without G*."
)
GRADES = (
    "G* of each labeler against the mean of the others, and of the model, a constant, and the model's shuffled stars "
    "in their place, averaged over the folds by their numbers of labels. 1 means the same score for every image, "
    "0 means chance agreement. G is shown because it is the article's own grade; "
    "on its own it is misleading, as that of the constant shows."
)
SQUEEZED = (
    "Least cost compresses the extremes: if scores and labels agree imperfectly, a star near the middle costs less, "
    "so 1 and 5 tend to be given less often than by people. Thresholds that match people's shares do not, and cost "
    "more."
)
ALTERNATIVE = (
    "For each labeler and image: is the model at least as close to the other labelers' labels as this labeler is (root "
    "mean square)? It passes if it can replace half of the labelers or more, with a margin epsilon for how much worse "
    "it may be because it is cheaper: 0.1 if it replaces a crowd, 0.15 for skilled people, 0.2 for experts. Passing "
    "means that the model is a reasonable alternative to hiring one more such labeler; it does not mean that it agrees "
    "with people, so the constant is shown for comparison. The results for each labeler are in the labelers' table."
)
NO_TEST = (
    "The alternative annotator test was not run: it needs three labelers who share at least thirty images with others."
)
NO_STARS = "There are no stars, so this part is left out: "

READING = {
    "Brackets": "95% bootstrap intervals: people are resampled, then the images of each, which errs on the wide side "
    "if people differ little. With fewer than two people, prompts with their seeds, or images, are resampled. "
    "Thresholds are kept fixed. Intervals over fewer than about five people are too narrow, and none of them cover "
    "other labelers or another training run. — marks what cannot be computed.",
    "Missing scores": "An image without a score, such as one without a face, is not compared: everything shown side by "
    "side is measured on the same images.",
    "Reconstruction": "The formulas in appendix B of the underlying article, How good is your model?, are lost; "
    "the definitions of grades, buckets, and folds here are a reconstruction.",
    "kappa": "Cohen's kappa with quadratic weights (Cohen 1968): 1 means identical labels, 0 chance agreement.",
    "Krippendorff's alpha": "Agreement of all labelers at once, for ordinal labels with gaps (Krippendorff "
    "2011): 1 means full agreement, 0 chance agreement.",
    "MAE, exact, within 1": "Mean absolute error in steps of the scale; share of images with the same label; "
    "share with a difference of at most one step.",
    "G": "The evaluator's grade: 1 minus the mean distance of scores 0 to 1 from the mean of the others. Always "
    "answering 3 gets a high grade.",
    "G*": "The same corrected for chance: 1 minus the distance over that of unrelated images; with power 2 it is the "
    "concordance coefficient (Lin 1989).",
    "Spearman, Pearson, Kendall": "Rank and linear correlation; and tau-b, which counts pairs in the same order.",
    "Constant, and model shuffled": "The single label with the lowest cost; and the model's own stars on other images, "
    "a baseline for its shares of each star. Anything that does not beat them knows nothing about an image.",
    "Naive fold": "Thresholds fitted on their own test images. This is leakage, and makes the model look better.",
    "Alternative annotator test": "Calderon et al. 2025, arXiv 2501.10970.",
    "The verdict": "Better and worse mean that the interval of the difference on the same images excludes 0; about as "
    f"well means that all of it lies within {MARGIN:g} of 0. Kappa is compared with that of another labeler, and the "
    "mean absolute error with that of a constant.",
}


def leakage(study: Study) -> str:
    """How optimistic the naive fold is; empty without stars."""
    if study.refused:
        return ""
    clean, naive = (study.mean.against_others[name]["corrected"] for name in (MODEL, NAIVE))
    return (
        f"The naive fold fits thresholds on its own test images (leakage), so it is optimistic. Here its G* is "
        f"{shown(naive, '.2f')} and the clean one is {shown(clean, '.2f')}; only the clean one counts."
    )


def alternative(study: Study) -> str:
    """The result of the test and its meaning, or why it was not run."""
    return f"{alternative_sentence(study)} {ALTERNATIVE}" if study.alternative else NO_TEST


def squeeze(study: Study) -> str:
    """Why the histograms differ, with their shares of 1 and 5."""
    people, cheapest, matched = (100 * (found[0] + found[-1]) for found in histograms(study).values())
    return (
        f"{SQUEEZED} Here {people:.0f}% of people's labels are 1 or 5, of the stars {cheapest:.0f}% by least cost "
        f"and {matched:.0f}% by people's shares."
    )

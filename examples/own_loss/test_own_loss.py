"""The one test that a term needs: its formula in plain torch, and a call of `check_term`."""

import torch.nn.functional as F

from kdlosses.testing import check_term


def image_crd(
    image_features, text_features, logit_scale, dist_image_features, dist_text_features, dist_logit_scale, **_
):
    image, text, teacher_image, teacher_text = (
        F.normalize(x, dim=1) for x in (image_features, text_features, dist_image_features, dist_text_features)
    )
    student = (logit_scale * image @ text.T).log_softmax(1)
    teacher = (dist_logit_scale * teacher_image @ teacher_text.T).log_softmax(1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def test_image_crd():
    check_term("image_crd", image_crd)

"""The Chinese of the gallery's tables and findings, and a translation that refuses what is missing.

An English text with `{}` in it stands for all that have a clause in these places, and with `{#}` for those that
have one word or figure; in the Chinese one `{0}` is the first of them, translated itself where it can be. `tests/examples/test_gallery.py` holds the list against
the saved results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from transferscope.errors import InputError

WORDS: Mapping[str, str] = {
    # ------------------------------------------------------------------------ all examples
    "{#} ({#} to {#})": "{0}（{1} 至 {2}）",
    "{#} and {#}": "{0} 和 {1}",
    "{#}, then {#}": "{0}，然后 {1}",
    "{} {#}, then {} {#}": "{0} {1}，然后 {2} {3}",
    "{#}, {#} and {#}": "{0}、{1} 和 {2}",
    "{#} of {#}": "{1} 中的 {0}",
    "on the same {} pictures, p {}": "在相同的 {0} 张图片上，p {1}",
    "{#} pictures": "{0} 张图片",
    "what tuning brought, percentage points": "微调带来的提高，百分点",
    # ------------------------------------------------------------------------ 01
    "top-1 with a head of random weights": "随机权重分类头的 top-1",
    "the lesson's before; chance is {}, whatever the network knows": "课程所说的“之前”；随机水平是 {0}，与网络知道什么无关",
    "top-1 of the untuned network with a linear probe": "未微调的网络加线性探针的 top-1",
    "the fair before": "公平的“之前”",
    "top-1 of the tuned network": "微调后的网络的 top-1",
    "likeness of the map before and after, {}": "之前与之后的图的相似程度，{0}",
    "rank correlation, 1: the same map. {}": "秩相关，1 表示同一张图。{0}",
    "Not settled by {} pictures: {}": "{0} 张图片不足以判定：{1}",
    "failed the check: {}": "未通过检验：{0}",
    "Passed every check on {} pictures of this network.": "在这个网络的 {0} 张图片上通过了每一项检验。",
    "it is not settled whether its places matter more than edges (by {}, {} to {})": "它标出的位置是否比边缘更重要，尚不能判定（相差 {0}，{1} 至 {2}）",
    "its places matter no more than edges (by {}, {} to {})": "它标出的位置并不比边缘更重要（相差 {0}，{1} 至 {2}）",
    "it is not settled whether its places matter more than random ones (by {}, {} to {})": "它标出的位置是否比随机位置更重要，尚不能判定（相差 {0}，{1} 至 {2}）",
    "its places matter no more than random ones (by {}, {} to {})": "它标出的位置并不比随机位置更重要（相差 {0}，{1} 至 {2}）",
    "it is not settled whether its maps change with the weights (rank correlation {}, {} to {} around {})": "它的图是否随权重改变，尚不能判定（秩相关 {0}，{1} 至 {2}，界限 {3}）",
    "its maps stay as they are when all weights are redrawn (rank correlation {}, {} to {})": "所有权重重新随机之后，它的图不变（秩相关 {0}，{1} 至 {2}）",
    "in a mosaic of four it does not point at the class asked for (share {}, {} to {}, chance {})": "在四张图片的拼图中，它不指向所问的类别（份额 {0}，{1} 至 {2}，随机 {3}）",
    "it is not settled whether it points in a mosaic of four (share {}, {} to {}, chance {})": "在四张图片的拼图中，它是否指向所问的类别，尚不能判定（份额 {0}，{1} 至 {2}，随机 {3}）",
    "another class has the same map (rank correlation {}, {} to {})": "另一个类别得到同一张图（秩相关 {0}，{1} 至 {2}）",
    "it is not settled whether another class has another map (rank correlation {}, {} to {} around {})": "另一个类别是否得到另一张图，尚不能判定（秩相关 {0}，{1} 至 {2}，界限 {3}）",
    "change of the maps beyond that of control transfers": "图的改变超出对照迁移的部分",
    "1 - rank correlation, less the mean of {} controls; the probe's head on all": "1 − 秩相关，减去 {0} 个对照的均值；所有网络都用探针的分类头",
    "Grad-CAM's maps of {} test pictures changed by {} (1 - rank correlation; controls {} to {}), more than tuning on shuffled labels changes them.": "{0} 张测试图片的 Grad-CAM 图改变了 {1}（1 − 秩相关；对照为 {2} 至 {3}），大于在打乱的标签上微调所造成的改变。",
    "Grad-CAM's maps of {} test pictures changed by {} (1 - rank correlation; controls {} to {}), less than tuning on shuffled labels changes them.": "{0} 张测试图片的 Grad-CAM 图改变了 {1}（1 − 秩相关；对照为 {2} 至 {3}），小于在打乱的标签上微调所造成的改变。",
    "Grad-CAM's maps of {} test pictures changed by {} (1 - rank correlation; controls {} to {}); with {} controls and {} pictures that could not be told apart from what tuning on shuffled labels does.": "{0} 张测试图片的 Grad-CAM 图改变了 {1}（1 − 秩相关；对照为 {2} 至 {3}）；用 {4} 个对照和 {5} 张图片，无法把它与在打乱的标签上微调所造成的改变区分开。",
    # ------------------------------------------------------------------------ 02
    "uniform guesses over {} classes, bits": "在 {0} 个类别上均匀猜测，比特",
    "two epochs {}: seconds": "两个轮次，{0}：秒",
    "two epochs {}: loss, nats": "两个轮次，{0}：损失，奈特",
    "from scratch, everything trained": "从头训练，训练全部",
    "frozen, the head trained": "冻结，只训练分类头",
    "partly frozen, the last two stages trained": "部分冻结，训练最后两个阶段",
    "{#} of the test pictures recognised": "认出 {0} 的测试图片",
    "uniform guesses: {}": "均匀猜测：{0}",
    "{#} min": "{0} 分钟",
    "time of the frozen loop: of everything trained": "冻结的循环所用时间：训练全部的几分之几",
    "features kept, head fitted exactly: seconds": "保存特征、精确拟合分类头：秒",
    "decoding included": "包括解码",
    "frozen loop to the same accuracy: seconds": "冻结的循环达到相同准确率：秒",
    "{} epochs of {} s each, as timed above": "{0} 个轮次，每个 {1} 秒，如上所测",
    "more than {#}": "超过 {0}",
    "less than {#}": "小于 {0}",
    "time of kept features: of the frozen loop, at equal accuracy": "保存特征所用时间：相同准确率下冻结循环的几分之几",
    "time of kept features: of two epochs of everything": "保存特征所用时间：训练全部的两个轮次的几分之几",
    "the same without normalising, test pictures recognised": "同样但不做归一化，认出的测试图片",
    "normalised: {}": "归一化后：{0}",
    "parameters of ResNet-18 with ten classes": "十个类别的 ResNet-18 的参数个数",
    "of them in the head: {}": "其中分类头：{0}",
    "layers of {}": "{0} 的层数",
    "layers.csv lists them": "layers.csv 列出了它们",
    "change of the first kernels by tuning for two tasks": "为两个任务微调时最前面的卷积核的改变",
    "of their norm; between the two: {}": "相对于其范数；两者之间：{0}",
    "On the plane the set stands at a similarity of {} and {} training pictures a class; {} is recommended.": "在平面上，这个数据集的相似度为 {0}，每个类别 {1} 张训练图片；推荐 {2}。",
    "Tuned from the same weights, networks of two tasks have a CKA of {} at the first depth and {} at the last; from scratch they reach {}, and untrained ones {}: they come to share early features.": "从相同的权重微调，两个任务的网络在最浅处的 CKA 为 {0}，在最深处为 {1}；从头训练达到 {2}，未训练的为 {3}：它们渐渐共享早期特征。",
    "Tuned from the same weights, networks of two tasks have a CKA of {} at the first depth and {} at the last; from scratch they reach {}, and untrained ones {}: training took them apart, and shared is what both began with.": "从相同的权重微调，两个任务的网络在最浅处的 CKA 为 {0}，在最深处为 {1}；从头训练达到 {2}，未训练的为 {3}：训练使它们分开，共享的只是两者的起点。",
    "Tuned from the same weights, networks of two tasks have a CKA of {} at the first depth and {} at the last; from scratch they reach {}, and untrained ones {}: what they share at the first depth could not be told from what untrained networks share, so it is no proof of having learned the same.": "从相同的权重微调，两个任务的网络在最浅处的 CKA 为 {0}，在最深处为 {1}；从头训练达到 {2}，未训练的为 {3}：它们在最浅处共享的东西，无法与未训练的网络共享的东西区分开，因此不能证明学到了同样的东西。",
    # ------------------------------------------------------------------------ 03
    "parameters of VGG-16 with the head": "VGG-16 连同分类头的参数个数",
    "of them trained": "其中参与训练的",
    "top-1 on validation, {}": "验证集上的 top-1，{0}",
    "head alone, network frozen": "只有分类头，网络冻结",
    "head and last stages": "分类头与最后的阶段",
    "{#} on test": "测试集上的 {0}",
    "another network and other pictures": "另一个网络，另一些图片",
    "cross-entropy on test, nats": "测试集上的交叉熵，奈特",
    "with the temperature that validation chose": "温度由验证集选定",
    "tuned less the frozen network with a linear probe, percentage points": "微调后减去冻结的网络加线性探针，百分点",
    "top-1 on test, such pairs counted as one class": "测试集上的 top-1，这样的一对算作一个类别",
    "beside the plain figure, never in its place": "与普通数字并列，从不代替它",
    "Of {} wrong answers, {} are between classes that look alike by their nature ({}), as crocodile and crocodile_head do in the lesson.": "{0} 个错误回答中，有 {1} 个发生在本来就相似的类别之间（{2}），就像课程中的 crocodile 和 crocodile_head。",
    "No two classes are called as if one were a part of the other.": "没有哪两个类别的名称显得一个是另一个的一部分。",
    # ------------------------------------------------------------------------ 04
    "the cat's photograph is a cat": "猫的照片是猫",
    "the cat's photograph is a dog": "猫的照片是狗",
    "the untuned network, over ImageNet's {} classes of {}": "未微调的网络，对 ImageNet 的 {0} 个{1}类别求和",
    "cats": "猫",
    "dogs": "狗",
    "probability of the ideal {}": "理想的 {0} 的概率",
    "total variation of the ideal {}": "理想的 {0} 的全变差",
    "pixels alone, with total variation penalised, the full recipe": "只有像素、加全变差惩罚、完整配方",
    "mean difference of neighbouring pixels": "相邻像素之差的均值",
    "the same three": "同样三种",
    "a cat's photograph taken for another class": "猫的照片被当作另一个类别",
    "a picture of the set taken for another class": "数据集中的一张图片被当作另一个类别",
    "no value changed by more than {}": "任何数值的改变都不超过 {0}",
    "random noise of that size: {}": "同样大小的随机噪声：{0}",
    "breeds of the Oxford pets; classes here": "Oxford pets 的品种；这里的类别",
    "the set has 37": "该数据集有 37 个",
    "here {#} generated characters": "这里是 {0} 个生成的字符",
    "top-1 on test, a classifier on frozen features": "测试集上的 top-1，冻结特征上的分类器",
    "top-1 on test, tuned": "测试集上的 top-1，微调后",
    "tuned less a classifier on frozen features, percentage points": "微调后减去冻结特征上的分类器，百分点",
    "on the same pictures, p {}: what frozen features lack for {} generated characters": "在相同的图片上，p {0}：冻结的特征对 {1} 个生成的字符所缺的",
    "refused: characters that were not taught": "拒绝：没有教过的字符",
    "refused: photographs": "拒绝：照片",
    "refused: test pictures of the classes": "拒绝：属于这些类别的测试图片",
    "of {#}": "共 {0} 张",
    "{#} are allowed": "允许 {0}",
    "Of {} characters that were not taught, {} are given one of the classes with more than {}: the classifier's certainty does not tell strangers.": "在 {0} 张没有教过的字符图片中，有 {1} 张以高于 {2} 的概率被归入某个类别：分类器的把握不能识别陌生图片。",
    # ------------------------------------------------------------------------ 05
    "top-1 on test: dogs and cars; here": "测试集上的 top-1：狗和汽车；这里",
    "{#} generated characters": "{0} 个生成的字符",
    "channels that learned, beyond control transfers": "学到东西的通道，超出对照迁移",
    "class information, {} controls, false discovery rate {}": "类别信息，{0} 个对照，错误发现率 {1}",
    "the same of each control, held against the others": "同样的问题问每个对照，与其余对照相比",
    "what the count above is worth": "上面的数目有多可信",
    "channels that answer differently": "回答不同的通道",
    "a network tuned on shuffled labels does that too": "在打乱的标签上微调的网络也是如此",
    "{} set back to its start, percentage points of top-1": "{0} 恢复到起点，top-1 的百分点",
    "the head": "分类头",
    "gives back {} of {} lost pictures": "找回 {1} 张丢失的图片中的 {0} 张",
    "best 20 real pictures that both networks share, by layer": "最能激发通道的 20 张真实图片中两个网络共有的，按层",
    "mean of the channels that were drawn": "所画通道的均值",
    "median likeness of a channel's two drawings, by layer": "一个通道的两幅绘图的相似度的中位数，按层",
    "falls with depth, but for the last block": "随深度下降，最后一个模块除外",
    "The judge is {} with ImageNet weights of its own, a network of the same family that is not compared.": "评判者是 {0}，有它自己的 ImageNet 权重，是同一家族中不参与比较的网络。",
    "failed drawings": "失败的绘图",
    "{} of {} by their status, {} by greyness": "{1} 幅中按状态有 {0} 幅，按灰度有 {2} 幅",
    "a status is decided from activations and gradients, not from how a picture looks": "状态由激活和梯度决定，而不看图片的样子",
    "greyscale error of the greyest drawing": "最灰的绘图的灰度误差",
    "0 to 1": "0 至 1",
    "it ended {}": "它的结果是 {0}",
    "optimized": "已优化",
    "below exemplar": "低于真实图片",
    "{#} below exemplar": "{0} 幅低于真实图片",
    "zero gradient": "没有梯度",
    "{#} zero gradient": "{0} 幅没有梯度",
    "dead on data": "对图片没有反应",
    "{#} dead on data": "{0} 幅对图片没有反应",
    "non finite": "不是有限数值",
    "{#} non finite": "{0} 幅不是有限数值",
    "with 8-bit values that wrap {}": "用会回绕的 8 位数值则是 {0}",
    "distance of Gram matrices by layer, {}": "Gram 矩阵的距离，按层，{0}",
    "base and tuned": "微调前后",
    "one network drawn twice": "同一网络画两次",
    "median; 1 is the distance of unrelated channels": "中位数；1 是无关通道之间的距离",
    "right choices of the judge by a channel's pictures, {}": "评判者凭通道的图片选对的比例，{0}",
    "base": "微调前",
    "tuned": "微调后",
    "real {}, drawn {}": "真实图片 {0}，绘图 {1}",
    "which of two pictures excites the channel; 50% is chance": "两张图片中哪一张激发通道；随机水平是 50%",
    "CKA of base and tuned, by layer": "微调前后的 CKA，按层",
    "of the answers of all channels; 1 is the same": "所有通道的回答；1 表示相同",
    "top-1 of the untuned network, and after an epoch in training mode without a step": "未微调的网络的 top-1，以及在训练模式下过一个轮次、不走一步之后",
    "no weight changes; the means of BatchNorm move by {} of their norm": "权重没有改变；BatchNorm 的均值移动了其范数的 {0}",
    "BatchNorm trained less truly frozen, percentage points of top-1": "训练 BatchNorm 减去真正冻结，top-1 的百分点",
    "behind the boundary only, on the same {} pictures, p {}": "只在边界之后，在相同的 {0} 张图片上，p {1}",
    "No exception of the last layer was found: of {} and {} channels drawings {} (median {} in {}, {} in {}); the channels' answers changed {} there (median 1 - r² {}, then {}).": "没有发现最后一层的例外：就 {0} 个和 {1} 个通道而言，绘图{2}（中位数在 {4} 为 {3}，在 {6} 为 {5}）；那里通道的回答改变得{7}（1 − r² 的中位数先是 {8}，然后是 {9}）。",
    "grow less alike": "变得更不相似",
    "could not be told to grow more or less alike": "是变得更相似还是更不相似，无法判断",
    "more": "更多",
    "less": "更少",
    "not measurably more or less": "多了还是少了，无法测出",
    "The last layer is an exception here too: drawings grow more alike (median {} in {}, {} in {}), and the channels' answers changed {} there (median 1 - r² {}, then {}): {}.": "最后一层在这里也是例外：绘图变得更相似（中位数在 {1} 为 {0}，在 {3} 为 {2}），而那里通道的回答改变得{4}（1 − r² 的中位数先是 {5}，然后是 {6}）：{7}。",
    "the network itself changed less there": "网络本身在那里改变得更少",
    "it is the drawings: two of one network grow more alike there too": "原因在绘图：同一网络的两幅绘图在那里也更相似",
    "it is the drawings, not the network": "原因在绘图，不在网络",
    # ------------------------------------------------------------------------ 06
    "characters in the dictionary": "字典中的字符",
    "pictures in the data set, {}": "数据集中的图片，{0}",
    "train": "训练",
    "validation": "验证",
    "test": "测试",
    "parameters of the network": "网络的参数个数",
    "tuned behind {}": "微调 {0} 之后的部分",
    "top-1 on single test characters": "单个测试字符的 top-1",
    "{} pictures in typefaces that training has not seen": "{0} 张图片，字体在训练中没有见过",
    "top-1 on test, look-alikes counted as one": "测试集上的 top-1，相似的算作一个",
    "{}: in some typefaces only the width or a serif tells them apart": "{0}：在某些字体中只有宽度或衬线能区分它们",
    "strips of {} read whole": "整条读对的 {0} 字符条",
    "{#} strips": "{0} 条",
    "with look-alikes counted as one {}": "相似的算作一个则为 {0}",
    "Characters that are right {} of the time make strips that are right {} of the time if mistakes fall independently; {} were.": "如果错误相互独立，单个字符正确率 {0} 应使字符条的正确率为 {1}；实际为 {2}。",
}


def chinese(text: str) -> str:
    """The Chinese of a cell or a finding; clauses are translated one by one where the whole is not known.

    Raises:
        InputError: a text with words has no translation.
    """
    found = _translated(text)
    if found is None:
        raise InputError(
            f"no Chinese of {text!r}; add it to WORDS of examples/_chinese.py, with {{}} for what varies"
        )
    return found


def _translated(text: str) -> str | None:
    if text in WORDS:
        return WORDS[text]
    if not re.search(r"[A-Za-z]{2}", text):
        return text
    for pattern, form in _PATTERNS:
        if found := pattern.fullmatch(text):
            return form.format(*(_translated(part) or part for part in found.groups()))
    for mark, joint in (("; ", "；"), (", ", "，")):
        clauses = [_translated(clause) for clause in text.split(mark)] if mark in text else [None]
        if None not in clauses:
            return joint.join(map(str, clauses))
    # A name and a number: of a layer or a class, which stays as it is.
    return text if re.fullmatch(r"[\w.' -]+ [−-]?[\d.,]+%?", text) else None


_PATTERNS = [
    (
        re.compile(re.escape(text).replace(r"\{\}", "([^;]+?)").replace(r"\{\#\}", r"([^\s;]+)")),
        form,
    )
    for text, form in sorted(WORDS.items(), key=lambda pair: -len(pair[0]))
    if "{" in text
]
"""The longest first: "{#} of {#}" fits much."""

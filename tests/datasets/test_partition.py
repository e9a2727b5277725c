"""Published partitions in the forms in which they are released, and draws of own ones."""
import hashlib
import os
import random

import pytest

from mmseg_semi.datasets.partition import (
    FAMILIES,
    check_disjoint,
    check_fine,
    digest,
    list_id,
    partition_name,
    published,
    read_list,
    same_images,
)
from mmseg_semi.datasets.partition_draw import draw, group_images

WORDS = {
    'voc': [f'2007_{i:06d}' for i in range(10582)],
    'cityscapes': [f'aachen/aachen_{i:06d}_000019' for i in range(2975)],
    'ade20k': [f'ADE_train_{i:08d}' for i in range(20210)],
}
# One line per form that a released repository has.
FORMS = {
    'unimatch voc': ('voc_classic', 183, 'splits/pascal/183',
                     lambda name: f'JPEGImages/{name}.jpg SegmentationClass/{name}.png'),
    'u2pl voc': ('voc_blended_u2pl', 662, 'data/splits/pascal/662', lambda name: name),
    'cps voc': ('voc_blended_cps', 1323, 'DATA/pascal_voc/subset_train_aug/train_aug_{kind}_1-8.txt',
                lambda name: name),
    'unimatch cityscapes': ('cityscapes_cps', 100, 'partitions/cityscapes/1_30', lambda name: (
        f'leftImg8bit/train/{name}_leftImg8bit.png gtFine/train/{name}_gtFine_labelTrainIds.png')),
    'u2pl cityscapes': ('cityscapes_u2pl', 186, 'data/splits/cityscapes/186',
                        lambda name: f'leftImg8bit/train/{name}_leftImg8bit.png'),
    'cps cityscapes': ('cityscapes_cps', 744, 'DATA/city/config_new/subset_train/train_aug_{kind}_1-4.txt',
                       lambda name: f'/images/train/{name[7:]}.png\t/segmentation/train/{name[7:]}_gtFine.png'),
    'unimatch v2 ade20k': ('ade20k', 631, 'splits/ade20k/1_32', lambda name: (
        f'images/training/{name}.jpg annotations/training/{name}.png')),
    'folder of lists': ('voc_classic', 92, '{kind}.txt', lambda name: name),
}


def write_release(root, form):
    family, count, place, line = FORMS[form]
    names = list(WORDS[family.split('_')[0]])
    random.Random(0).shuffle(names)
    for kind, part in (('labeled', names[:count]), ('unlabeled', names[count:])):
        path = root / (place.format(kind=kind) if place.endswith('.txt') else f'{place}/{kind}.txt')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(line(name) for name in part))  # U2PL's have no newline at the end
    return family, count, names


@pytest.mark.parametrize('form', FORMS)
def test_every_released_form_gives_the_same_ids(form, tmp_path):
    family, count, names = write_release(tmp_path, form)
    ids, told = published(tmp_path, family, count)
    assert told == (form != 'folder of lists')  # whose they are
    assert ids['labeled'] == names[:count] and ids['unlabeled'] == names[count:]


@pytest.mark.parametrize('setting', ['1/16', '0.0625', '100', 'x'])
def test_a_fraction_is_refused_with_the_choices(setting, tmp_path):
    with pytest.raises(ValueError, match='voc_blended_u2pl: 662, 1323') as error:
        published(tmp_path, 'voc_blended_cps', setting)
    assert 'different lists in different papers' in str(error.value)
    with pytest.raises(ValueError, match="no family of partitions is named 'voc'"):
        published(tmp_path, 'voc', 662)


def test_lists_that_are_not_the_published_ones_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='looked for splits/pascal/183/labeled.txt, partitions'):
        published(tmp_path, 'voc_classic', 183)
    write_release(tmp_path, 'unimatch voc')
    labeled = tmp_path / 'splits/pascal/183/labeled.txt'
    lines = labeled.read_text().splitlines()
    labeled.write_text('\n'.join(lines[1:]))
    with pytest.raises(ValueError, match='182 different images, but voc_classic 183 has 183 labeled'):
        published(tmp_path, 'voc_classic', 183)
    labeled.write_text('\n'.join(['JPEGImages/cat.jpg SegmentationClass/cat.png', *lines[1:]]))
    with pytest.raises(ValueError, match="'JPEGImages/cat.jpg' names no image"):
        published(tmp_path, 'voc_classic', 183)
    other = (tmp_path / 'splits/pascal/183/unlabeled.txt').read_text().splitlines()
    labeled.write_text('\n'.join([other[0], *lines[1:]]))
    with pytest.raises(ValueError, match='1 images are both labeled and unlabeled'):
        published(tmp_path, 'voc_classic', 183)


def test_the_unlabeled_images_are_all_others(tmp_path):
    """COCO: the checkout at hand may hold the labeled list only, which is all that a config of ours reads."""
    names = [f'{i:012d}' for i in range(118287)]
    folder = tmp_path / 'splits/coco/1_512'
    folder.mkdir(parents=True)
    (folder / 'labeled.txt').write_text('\n'.join(f'train2017/{name}.jpg' for name in names[:232]))
    with pytest.raises(FileNotFoundError, match='if there is only the labeled one, give --img-dir'):
        published(tmp_path, 'coco', 232)
    ids, _ = published(tmp_path, 'coco', 232, images=reversed(names))
    assert ids == dict(labeled=names[:232], unlabeled=names[232:])
    with pytest.raises(ValueError, match='--img-dir: 118054 different images, but coco 232 has 118055 unlabeled '
                                         'ones; it must hold the 118287 training images alone'):
        published(tmp_path, 'coco', 232, images=names[:-1])
    with pytest.raises(ValueError, match=f'--img-dir lacks 1 images of .*labeled.txt, such as {names[0]}'):
        published(tmp_path, 'coco', 232, images=names[1:])


def test_published_counts_add_up():
    totals = dict(voc=10582, cityscapes=2975, coco=118287, ade20k=20210)
    for name, family in FAMILIES.items():
        for count, (_, rest) in family.settings.items():
            assert count + rest == totals[name.split('_')[0]], name


def test_fine_masks_tell_the_families_apart():
    labeled = WORDS['voc'][:662]
    check_fine('voc_blended_u2pl', labeled, WORDS['voc'][:1464])
    check_fine('voc_blended_cps', labeled, WORDS['voc'][662 - 93:])
    with pytest.raises(ValueError, match='has 93 labeled images with a mask of VOC itself, found 662'):
        check_fine('voc_blended_cps', labeled, WORDS['voc'][:1464])
    with pytest.raises(ValueError, match='leave --fine-list out'):
        check_fine('voc_classic', WORDS['voc'][:92], WORDS['voc'])


def test_lines_and_ids():
    assert list_id('a\\b_leftImg8bit.png', ('.png', '_leftImg8bit.png')) == 'a/b'
    assert list_id('/x/y.JPG', ('.jpg', )) == 'x/y' and list_id('v1.5', ('.jpg', )) == 'v1.5'
    assert digest(['b', 'a']) == digest(['a', 'b']) != digest(['a'])
    assert partition_name('/data/VOC/splits/voc/classic/183/labeled.txt') == 'voc/classic/183'
    assert partition_name('ImageSets/Segmentation/val.txt') == 'Segmentation/val'
    assert partition_name('labeled.txt') == 'labeled' and partition_name('') is None


def test_broken_lists(tmp_path):
    path = tmp_path / 'list.txt'
    with pytest.raises(FileNotFoundError, match='list.txt'):
        read_list(path)
    path.write_text('\n \n')
    with pytest.raises(ValueError, match='empty'):
        read_list(path)
    path.write_text('a\n\nb \na\n')
    with pytest.raises(ValueError, match='1 images stand twice, such as a'):
        read_list(path)
    with pytest.raises(ValueError, match='2 images are both x and y, such as b'):
        check_disjoint('abc', 'bcd', 'x', 'y')


@pytest.mark.parametrize('one, other, shared', [
    (['2007_1', '2007_2'], ['JPEGImages/2007_2', 'JPEGImages/2007_3'], [('2007_2', 'JPEGImages/2007_2')]),
    (['leftImg8bit/train/aachen/a_1'], ['aachen/a_1', 'bonn/a_1'], [('leftImg8bit/train/aachen/a_1', 'aachen/a_1')]),
    (['a/1', 'b/2'], ['b/1', 'a/2'], []),
    (['x/a/1'], ['y/a/1', 'aa/1', 'x/aa/1'], []),  # whole names of folders
    (['1', 'b/2'], ['b/1', '2'], []),  # both have images in the folder and beside it
    (['1'], ['b/1', '2'], []),
    (['b/1'], ['1', 'b/2'], []),
])
def test_lists_of_different_forms_are_compared(one, other, shared):
    assert same_images(one, other) == shared
    assert same_images(other, one) == [pair[::-1] for pair in shared]


# ---- draws ------------------------------------------------------------------------------------------------------

IDS = [f'p{i % 10}/{i:03d}' for i in range(100)]
CLASSES = {name: frozenset({0, 1 + i % 3} | ({7} if i in (41, 81) else set())) for i, name in enumerate(IDS)}


def test_a_draw_is_the_same_for_ever():
    labeled = draw(group_images(IDS, None), CLASSES, 10, seed=3)
    assert digest(labeled) == digest(draw(group_images(IDS[::-1], None), CLASSES, 10, seed=3))
    assert labeled == [
        'p0/030', 'p1/051', 'p1/081', 'p4/004', 'p4/044', 'p6/026', 'p8/018', 'p8/088', 'p9/019', 'p9/099']
    assert labeled != draw(group_images(IDS, None), CLASSES, 10, seed=4)


@pytest.mark.parametrize('seed', range(20))
def test_every_class_occurs_and_larger_draws_contain_smaller_ones(seed):
    groups = group_images(IDS, None)
    draws = [set(draw(groups, CLASSES, count, seed)) for count in (4, 5, 20, 99)]
    for count, labeled in zip((4, 5, 20, 99), draws, strict=True):
        assert len(labeled) == count and set().union(*(CLASSES[name] for name in labeled)) == {0, 1, 2, 3, 7}
    assert all(small < large for small, large in zip(draws, draws[1:], strict=False))


def test_a_draw_is_fair():
    """Beyond the cover every image is as likely as any other."""
    counts = dict.fromkeys(IDS, 0)
    for seed in range(400):
        for name in draw(group_images(IDS, None), {}, 25, seed):
            counts[name] += 1
    assert 60 < min(counts.values()) and max(counts.values()) < 140  # 100 expected, sigma 8.7


@pytest.mark.parametrize('seed', range(5))
def test_groups_stay_on_one_side(seed):
    groups = group_images(IDS, r'^(p\d+)/')
    assert len(groups) == 10
    labeled = draw(groups, CLASSES, 25, seed)
    assert len(labeled) == 20 and len({name.split('/')[0] for name in labeled}) == 2
    assert 'p1/041' in labeled  # the only group with class 7


def test_draws_that_cannot_be():
    groups = group_images(IDS, None)
    with pytest.raises(ValueError, match='cannot show every class: it takes 3 images in 3 groups'):
        draw(groups, CLASSES, 2, 0)
    for count in (0, 101):
        with pytest.raises(ValueError, match='must be 1 to 100'):
            draw(groups, {}, count, 0)
    with pytest.raises(ValueError, match='no group fits into 3 labeled images; the smallest has 10'):
        draw(group_images(IDS, 'p.'), {}, 3, 0)
    with pytest.raises(ValueError, match="finds nothing in image 'p0/000'"):
        group_images(IDS, 'q')
    with pytest.raises(ValueError, match='no regular expression'):
        group_images(IDS, '(')


def test_names_that_are_no_utf8_have_a_digest():
    name = os.fsdecode(b'caf\xe9')
    assert digest([name]) == hashlib.sha256(b'caf\xe9').hexdigest()
    assert draw(group_images([name, 'b'], None), {}, 2, 0) == sorted([name, 'b'])

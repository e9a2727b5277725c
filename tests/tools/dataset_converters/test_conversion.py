"""What the converters share: safe and resumable archives, masks that appear whole, the summary."""
import argparse
import json
import tarfile

import numpy as np
import pytest
from PIL import Image


def everything(name):
    return name


CONVERTERS = ['ade20k', 'camvid', 'cityscapes', 'coco', 'voc_aug']
FILES = {'top/a.txt': b'first', 'top/b/c.txt': b'second' * 1000}


@pytest.fixture
def conversion(load):
    return load('conversion')


@pytest.fixture
def archives(load):
    return load('archives')


@pytest.fixture(params=['zip', 'tar', 'tgz'])
def write(kit, request):
    """Function that writes an archive of {name: bytes}."""
    mode = [] if request.param == 'zip' else ['w:gz' if request.param == 'tgz' else 'w']
    function = kit.write_tar if mode else kit.write_zip
    return lambda path, files: function(path, files, *mode)


def test_unpacks_once(archives, tmp_path, write):
    archive, out = write(tmp_path / 'a', FILES), tmp_path / 'out'
    assert archives.unpack(archive, out, everything) == 2
    assert {str(p.relative_to(out)): p.read_bytes() for p in out.rglob('*') if p.is_file()} == FILES
    assert archives.unpack(archive, out, everything) == 0
    (out / 'top/b/c.txt').write_bytes(b'cut')
    assert archives.unpack(archive, out, everything) == 1
    assert (out / 'top/b/c.txt').read_bytes() == FILES['top/b/c.txt']


def test_unpacks_what_is_wanted_to_where(archives, tmp_path, write):
    archive = write(tmp_path / 'a.zip', FILES)
    archives.unpack(archive, tmp_path / 'out', lambda name: 'x.txt' if name == 'top/a.txt' else None)
    assert [p.name for p in (tmp_path / 'out').rglob('*')] == ['x.txt']


@pytest.mark.parametrize('name', ['../evil.txt', 'top/../../evil.txt', '/tmp/evil_of_a_test.txt'])
def test_a_name_that_leads_out(archives, tmp_path, write, name):
    archive = write(tmp_path / 'a', {name: b'evil'})
    with pytest.raises(ValueError, match='leads out of the folder'):
        archives.unpack(archive, tmp_path / 'out', everything)
    assert not list(tmp_path.rglob('evil*')) and not list((tmp_path / 'out').rglob('*'))


def test_links_in_an_archive_are_not_made(archives, tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        info = tarfile.TarInfo('top/link')
        info.type, info.linkname = tarfile.SYMTYPE, '/etc'
        tar.addfile(info)
    archives.unpack(tmp_path / 'a.tar', tmp_path / 'out', everything)
    assert not list((tmp_path / 'out').rglob('*'))


def test_a_damaged_archive(archives, tmp_path, write):
    archive = write(tmp_path / 'a', {'n': np.random.default_rng(0).bytes(100000)})
    archive.write_bytes(archive.read_bytes()[:60000])
    with pytest.raises(ValueError, match='download it again'):
        archives.unpack(archive, tmp_path / 'out', everything)
    assert not [p for p in (tmp_path / 'out').rglob('*') if p.is_file()]


def test_sources(archives, kit, tmp_path):
    folder = kit.write_folder(tmp_path / 'data', {'inner/marker/x': b''})
    with pytest.raises(FileNotFoundError, match='no such file or folder: .*none.zip'):
        archives.gather([tmp_path / 'none.zip'], None, tmp_path, everything, [], ['marker'])
    with pytest.raises(ValueError, match='expected archives or one folder, found 2 paths'):
        archives.gather([folder, folder], None, tmp_path, everything, [], ['marker'])
    with pytest.raises(FileNotFoundError, match='no marker in .*data: expected the official archives'):
        archives.gather([folder], None, tmp_path, everything, [], ['marker'])
    inner = folder / 'inner'
    assert archives.gather([folder], None, tmp_path, everything, ['inner'], ['marker']) == (inner, inner)
    assert archives.gather([folder], tmp_path, inner, everything, ['inner'], ['marker']) == (inner, tmp_path)


def test_a_mask_is_made_once(conversion, kit, tmp_path):
    path, content, calls = tmp_path / 'm/a.png', np.arange(12, dtype=np.uint8).reshape(3, 4), []

    def make():
        calls.append(1)
        return content

    first = conversion.store(path, 'a', 'test-1', make)
    assert first.state == 'written' and (kit.labels(path) == content).all()
    assert first.counts[:12].tolist() == [1] * 12 and first.counts.sum() == 12
    again = conversion.store(path, 'a', 'test-1', make)
    assert (again.state, again.sha256, len(calls)) == ('kept', first.sha256, 1)
    assert (again.counts == first.counts).all()
    assert conversion.store(path, 'a', 'test-2', make).state == 'written'  # another recipe
    path.write_bytes(path.read_bytes()[:-30])  # damaged after it was written
    assert conversion.store(path, 'a', 'test-2', make).state == 'written'
    path.write_bytes(b'')  # as a full disk leaves it
    assert conversion.store(path, 'a', 'test-2', make).state == 'written'
    assert (kit.labels(path) == content).all()
    assert [p.name for p in path.parent.iterdir()] == ['a.png']


def test_a_mask_whose_labels_were_edited_is_made_again(conversion, kit, tmp_path):
    path, content = tmp_path / 'a.png', np.zeros((3, 4), np.uint8)
    conversion.store(path, 'a', 'test-1', lambda: content)
    with Image.open(path) as image:
        text = conversion.PngImagePlugin.PngInfo()
        text.add_text(conversion.KEY, image.info[conversion.KEY])
    Image.fromarray(content + 1).save(path, pnginfo=text)
    assert conversion.store(path, 'a', 'test-1', lambda: content).state == 'written'
    assert (kit.labels(path) == 0).all()


def test_a_mask_from_elsewhere_is_compared_and_never_overwritten(conversion, kit, tmp_path):
    path, content = tmp_path / 'a.png', np.zeros((3, 4), np.uint8)
    for foreign, state in [(kit.encode(content), 'kept'), (kit.encode(content + 1), 'different'),
                           (b'no picture', 'different')]:
        path.write_bytes(foreign)
        assert conversion.store(path, 'a', 'test-1', lambda: content).state == state
        assert path.read_bytes() == foreign
    mask = conversion.store(path, 'a', 'test-1', lambda: content)
    with pytest.raises(ValueError, match='1 of 1 masks .* the first is a; .* move them away'):
        conversion.summarize(tmp_path, 'test-1', dict(train=[mask]), ['zero'])
    assert not (tmp_path / 'test.json').exists()


def test_summary(conversion, tmp_path, capsys):
    def mask(name, content):
        return conversion.store(tmp_path / f'{name}.png', name, 'test-1', lambda: np.array(content, np.uint8))

    one, two = mask('one', [[0, 0], [1, 255]]), mask('two', [[1, 1, 1]])
    summary = conversion.summarize(tmp_path, 'test-1', dict(train=[one, two]), ['sky', 'road'])
    assert summary['parts']['train']['pixels'] == {'sky': 2, 'road': 4, '(ignored)': 1}
    assert summary == json.loads((tmp_path / 'test.json').read_text())
    assert 'train: 2 masks (2 written), sha256' in capsys.readouterr().out
    conversion.summarize(tmp_path, 'test-1', dict(train=[two, one]), ['sky', 'road'])
    assert 'warning' not in capsys.readouterr().err  # the order does not matter
    conversion.summarize(tmp_path, 'test-1', dict(train=[one, two._replace(sha256='0')]), ['sky', 'road'])
    assert 'warning: train had the digest' in capsys.readouterr().err


def test_digest_knows_the_shape(conversion):
    assert conversion.digest(np.zeros((2, 6), np.uint8)) != conversion.digest(np.zeros((3, 4), np.uint8))


def test_labels_that_do_not_fit(conversion, kit, tmp_path):
    image = tmp_path / 'a.png'
    image.write_bytes(kit.encode(np.zeros((3, 4, 3), np.uint8)))
    with pytest.raises(ValueError, match=r'm.png is \(4, 3\), its image .*a.png is \(3, 4\)'):
        conversion.check_labels(np.zeros((4, 3), np.uint8), 'm.png', image, 20)
    with pytest.raises(ValueError, match=r'm.png holds labels \[21\]; expected 0..20 or 255'):
        conversion.check_labels(np.full((3, 4), 21, np.uint8), 'm.png', image, 20)
    conversion.check_labels(np.full((3, 4), 255, np.uint8), 'm.png', image, 20)
    with pytest.raises(ValueError, match='mode RGB; expected a mask of indices'):
        conversion.read_labels(image)


def test_missing_files_are_counted_and_named(conversion, tmp_path):
    with pytest.raises(FileNotFoundError, match='5 of 5 images missing: .*0.jpg, .*1.jpg, .*2.jpg, ...; from there'):
        conversion.require([tmp_path / f'{i}.jpg' for i in range(5)], 'images', 'from there')


def test_one_converter_at_a_time(conversion, tmp_path):
    with conversion.locked(tmp_path / 'out'):
        with pytest.raises(ValueError, match='another converter works in'):
            with conversion.locked(tmp_path / 'out'):
                pass
    with conversion.locked(tmp_path / 'out'):
        pass


def test_a_link_never_replaces_anything(conversion, tmp_path):
    (tmp_path / 'a').mkdir()
    conversion.link(tmp_path / 'a', tmp_path / 'x/b')
    conversion.link(tmp_path / 'a', tmp_path / 'x/b')
    assert (tmp_path / 'x/b').samefile(tmp_path / 'a')
    (tmp_path / 'c').mkdir()
    with pytest.raises(FileExistsError, match='c exists and is not .*a; remove it'):
        conversion.link(tmp_path / 'a', tmp_path / 'c')


def test_an_error_in_a_worker_reaches_the_caller(conversion):
    assert conversion.parallel(int, ['1', '2', '3', '4', '5'], workers=2) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="'x'"):
        conversion.parallel(int, ['1', 'x', '3'], workers=2)


@pytest.mark.parametrize('text', ['0', '-1', 'two', '1.5', ''])
def test_workers_is_a_positive_number(conversion, text):
    with pytest.raises(argparse.ArgumentTypeError, match='expected a whole number of at least 1'):
        conversion.positive(text)


@pytest.mark.parametrize('name', CONVERTERS)
def test_newcomers(load, run, tmp_path, name):
    """A wrong path and a file that is no archive: one line and the status 2."""
    tool = load(name)
    more = [tmp_path] if name == 'voc_aug' else []
    status, _, err = run(tool, tmp_path / 'typo.zip', *more)
    assert status == 2 and err == f'error: no such file or folder: {tmp_path}/typo.zip\n'
    status, _, err = run(tool, tmp_path, *more)
    assert status == 2 and err.startswith('error: no ') and 'docs/datasets.md' in err and err.count('\n') == 1
    (tmp_path / 'page.zip').write_bytes(b'<html>please log in')
    status, _, err = run(tool, tmp_path / 'page.zip', *more, '--out', tmp_path / 'out')
    assert status == 2 and 'download it again' in err and err.count('error:') == 1


def test_a_folder_that_cannot_be_written(conversion, capsys):
    def main():
        raise OSError(30, 'Read-only file system', '/data/voc')

    assert conversion.guard(main) == 2
    assert capsys.readouterr().err == ("error: [Errno 30] Read-only file system: '/data/voc'; choose a folder that can "
                                       'be written with --out\n')

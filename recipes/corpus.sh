#!/usr/bin/env bash
# English and Chinese text to train on, from Debian packages and, where npm is, its chinese-poetry:
# a folder with a .jsonl for each source, {"text","source","path","licence"} a line.
#
#   recipes/corpus.sh [--all] [FOLDER]           (corpus-debian)
#
# Packages are downloaded and unpacked, never installed; any user may run it, the package lists must
# be there (apt-get update). Run it again to go on where it stopped. Without --all only sources are
# taken that may be passed on under their own notice; --all takes the others as well, for use on this
# machine. About 300 MB are downloaded, with --all 520 MB; FOLDER/.download may be removed afterwards.
#
# Then:  minke data --in FOLDER --tokenizer DIR --out SHARDS      (docs/data.md)
set -euo pipefail
recipes=$(cd "$(dirname "$0")" && pwd)
tool=$recipes/../tools/debian_corpus.py

all=()
if [ "${1:-}" = --all ]; then
  all=(--all)
  shift
fi
case "${1:-}" in
  -*)
    echo "usage: recipes/corpus.sh [--all] [FOLDER]" >&2
    exit 2
    ;;
esac
folder=${1:-corpus-debian}
for program in apt-get dpkg-deb python3; do
  command -v "$program" >/dev/null || {
    echo "$program was not found; this recipe needs a Debian or a system made from it" >&2
    exit 1
  }
done
mkdir -p "$folder/.download"
folder=$(cd "$folder" && pwd)
download=$folder/.download

missing=0
while read -r package; do
  if compgen -G "$download/${package}_*.deb" >/dev/null || [ -f "$folder/$package.jsonl" ]; then continue; fi
  echo "download $package"
  # A directory of its own: a download that is broken off leaves nothing that looks whole.
  rm -rf "$download/partial" && mkdir "$download/partial"
  if (cd "$download/partial" && apt-get -qq download "$package" 2>"$download/apt.log"); then
    mv "$download"/partial/*.deb "$download"
  else
    tail -n 1 "$download/apt.log" >&2
    missing=1
  fi
done < <(python3 "$tool" list "${all[@]}")
[ "$missing" -eq 0 ] || echo "some packages could not be had; is the package list new (apt-get update)?" >&2

poetry=()
if command -v npm >/dev/null; then
  if [ ! -d "$download/chinese-poetry" ]; then
    echo "download chinese-poetry"
    rm -rf "$download/partial" && mkdir "$download/partial"
    if (cd "$download/partial" && npm pack --silent chinese-poetry@2.0.1 >/dev/null && mkdir whole &&
        tar xzf chinese-poetry-2.0.1.tgz -C whole --strip-components=1); then
      mv "$download/partial/whole" "$download/chinese-poetry"
    else
      echo "chinese-poetry could not be had from npm: the corpus goes without it" >&2
    fi
  fi
  [ ! -d "$download/chinese-poetry" ] || poetry=(--poetry "$download/chinese-poetry")
else
  echo "npm was not found: the corpus goes without chinese-poetry, 84 MB of verse" >&2
fi

python3 "$tool" extract "$folder" --debs "$download" "${all[@]}" "${poetry[@]}"
python3 "$tool" table "$folder"

#!/usr/bin/env bash
# Recordings as an egress leaves them, made by the elements an egress uses: x264enc (main, no scene cuts, x264's own
# key-frame maximum of 250), AAC, splitmuxsink with mpegtsmux, key frames asked for by the sink. Every picture carries
# its number and every second begins with a beep (tests/media/picture.rs).
#
#   scripts/make-material.sh                     the committed fixtures, into tests/fixtures/material
#   scripts/make-material.sh DIR SEGMENT_SECONDS  one set; settings from the environment:
#     WIDTH HEIGHT FPS LENGTH (seconds) KBPS AKBPS AUDIO (1 or 0) FIRST (number of the first picture) GRAIN (0-40) PRESET
#
# It takes as long as the recording lasts: the sink's requests for key frames come too late for an encoder that is
# faster than the clock.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in gst-launch-1.0 rustc; do
  command -v "$tool" >/dev/null || { echo "make-material: $tool is missing" >&2; exit 1; }
done
for element in x264enc avenc_aac mpegtsmux splitmuxsink h264parse clocksync; do
  gst-inspect-1.0 --exists "$element" || { echo "make-material: GStreamer has no $element" >&2; exit 1; }
done

raw=target/material/raw_material
mkdir -p target/material
if [ ! -x "$raw" ] || [ examples/raw_material.rs -nt "$raw" ] || [ tests/media/picture.rs -nt "$raw" ]; then
  rustc --edition 2024 -O -o "$raw" examples/raw_material.rs
fi

one() {
  local out=$1 seconds=$2 work
  local width=${WIDTH:-320} height=${HEIGHT:-180} fps=${FPS:-30} length=${LENGTH:-32} first=${FIRST:-0} grain=${GRAIN:-0}
  work=$(mktemp -d "${TMPDIR:-/tmp}/material.XXXXXX")
  mkdir -p "$out"
  rm -f "$out"/seg_*.ts "$out"/*.m3u8
  mkfifo "$work/video" "$work/audio"
  "$raw" video "$width" "$height" "$fps" "$length" "$first" "$grain" >"$work/video" &
  local pipeline=(
    splitmuxsink name=mux muxer-factory=mpegtsmux "max-size-time=$((seconds * 1000000000))" send-keyframe-requests=true
    "location=$out/seg_%05d.ts"
    filesrc "location=$work/video" "blocksize=$((width * height * 3 / 2))"
    ! rawvideoparse format=i420 "width=$width" "height=$height" "framerate=$fps/1" ! videorate ! "video/x-raw,framerate=$fps/1" ! clocksync ! queue
    ! x264enc "speed-preset=${PRESET:-veryfast}" key-int-max=250 "bitrate=${KBPS:-150}" option-string=scenecut=0
    ! video/x-h264,profile=main ! h264parse config-interval=-1 ! mux.video
  )
  if [ "${AUDIO:-1}" = 1 ]; then
    "$raw" audio "$length" >"$work/audio" &
    pipeline+=(
      filesrc "location=$work/audio" blocksize=19200
      ! rawaudioparse format=pcm pcm-format=s16le sample-rate=48000 num-channels=2 ! clocksync ! audioconvert
      ! avenc_aac "bitrate=$((${AKBPS:-48} * 1000))" ! queue ! mux.audio_0
    )
  fi
  if ! timeout $((length * 4 + 60)) gst-launch-1.0 -e -m "${pipeline[@]}" >"$work/log" 2>&1; then
    tail -n 20 "$work/log" >&2
    rm -rf "$work"
    return 1
  fi
  "$raw" playlists "$work/log" "$out" "$seconds"
  rm -rf "$work"
  echo "$out: $(find "$out" -name 'seg_*.ts' | wc -l) segments, $(du -sk "$out" | cut -f1) KiB"
}

if [ $# -eq 2 ]; then
  one "$1" "$2"
  exit
fi

fixtures=tests/fixtures/material
started=()
for seconds in 2 4 10; do
  # numbers of their own, so that a frame says which set it is from
  FIRST=$((seconds * 3000)) one "$fixtures/${seconds}s" "$seconds" &
  started+=($!)
  FIRST=$((seconds * 3000 + 1500)) AUDIO=0 one "$fixtures/${seconds}s-silent" "$seconds" &
  started+=($!)
done
for pid in "${started[@]}"; do wait "$pid"; done

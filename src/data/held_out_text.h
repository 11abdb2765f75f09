// The held-out documents of shards as text again: for evaluation, and for other programs.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "base/threads.h"
#include "data/text_encoder.h"

namespace minke {

struct HeldOutText {
  std::string source;
  Index documents = 0, bytes = 0;  // bytes of text
};

// Writes {"text", "source"} lines, in the order of the shards, to `file`; the text is what was
// tokenised, without begin- and end-of-sentence (of a dialogue: the template's tokens as well).
// Returns what each source gave. `directories` and `tokenizer` as in open_shards.
std::vector<HeldOutText> write_held_out_text(const std::vector<std::string>& directories,
                                             const TextEncoder& encoder,
                                             const std::string& tokenizer,
                                             const std::filesystem::path& file);

}  // namespace minke

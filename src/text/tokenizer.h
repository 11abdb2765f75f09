// Byte-level BPE tokenizers as Hugging Face's tokenizer.json describes them. Encoding, in order:
//   added tokens are found (those not `normalized` first); the text between them is cut into pieces
//   (pre_tokenizer.h); a piece's bytes are merged by rank (bpe_merges.h).
// Nothing is added by itself. Time is O(n log n) in the text whatever it is. Decoding joins bytes
// and replaces what is no UTF-8. A tokenizer does not change after load: any number of threads may
// use it.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe_merges.h"
#include "text/pre_tokenizer.h"

namespace minke {

// Whether text that looks like an added token is one. A stranger's text should not be able to end
// its own turn: recognise added tokens only in the program's own text.
enum class SpecialTokens { Recognise, Ignore };
enum class SkipSpecial { No, Yes };

struct TextSegment {
  std::string text;
  SpecialTokens special = SpecialTokens::Ignore;
};

struct AddedToken {
  std::int32_t id = -1;
  std::string content;
  bool special = false;
  bool normalized = false;
};

// What a tokenizer is made of, whoever made it: a file or training.
struct TokenizerParts {
  std::vector<std::string> vocab;        // content by id, in stand-ins (byte_level.h); "" is a gap
  std::vector<Merge> merges;             // by rank
  std::vector<AddedToken> added_tokens;  // may repeat entries of vocab
  PreTokenizer pre_tokenizer = PreTokenizer::published();
  bool ignore_merges = false;  // a piece that is in the vocabulary is taken whole
};

// What tokenizer_config.json adds.
struct TokenizerConfig {
  std::optional<std::string> bos_token, eos_token, pad_token;
  bool add_bos_token = false;
};

class Tokenizer {
 public:
  // Reads dir/tokenizer.json and, where it exists, dir/tokenizer_config.json. Throws IoError or
  // FormatError (one line with file and field), the latter also for what is not implemented.
  static Tokenizer load(const std::filesystem::path& dir);

  // Throws FormatError when a byte has no piece, or ids, contents or configured tokens contradict.
  explicit Tokenizer(TokenizerParts parts, TokenizerConfig config = {});
  Tokenizer(Tokenizer&&) = default;
  Tokenizer& operator=(Tokenizer&&) = default;
  Tokenizer(const Tokenizer&) = delete;  // its indices point into it
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Throws FormatError naming the byte offset when the text is not UTF-8 or is 2 GiB or longer.
  std::vector<std::int32_t> encode(std::string_view text,
                                   SpecialTokens special = SpecialTokens::Recognise) const;
  // The segments' texts joined and encoded as one text, but for where added tokens are looked for:
  // inside one segment that allows it.
  std::vector<std::int32_t> encode(std::span<const TextSegment> segments) const;

  // Any ids: those that name no token stand for nothing.
  std::string decode(std::span<const std::int32_t> ids,
                     SkipSpecial skip_special = SkipSpecial::No) const;

  // The bytes for which an id stands, not always whole UTF-8; empty when it names no token.
  std::string_view token_bytes(std::int32_t id) const;
  // As tokenizer.json writes it (stand-ins for bytes); empty when it names no token.
  std::string_view token_content(std::int32_t id) const;
  bool is_special(std::int32_t id) const;
  // By content as tokenizer.json writes it.
  std::optional<std::int32_t> token_to_id(std::string_view content) const;

  std::int32_t vocab_size() const {
    return static_cast<std::int32_t>(bytes_.size());
  }  // max id + 1
  std::optional<std::int32_t> bos_id() const { return bos_id_; }
  std::optional<std::int32_t> eos_id() const { return eos_id_; }
  std::optional<std::int32_t> pad_id() const { return pad_id_; }
  bool add_bos_token() const { return config_.add_bos_token; }
  const TokenizerConfig& config() const { return config_; }
  const std::vector<AddedToken>& added_tokens() const { return added_; }

 private:
  void add_token(std::int32_t id, const std::string& content);
  void index_added_tokens();
  std::array<std::int32_t, 256> index_bytes() const;
  void find_added(std::string_view text, std::size_t offset,
                  std::vector<AddedTokens::Found>& found) const;
  std::vector<std::int32_t> encode(std::string_view text,
                                   std::span<const AddedTokens::Found> added) const;
  std::optional<std::int32_t> configured_id(const std::optional<std::string>& content,
                                            const char* key) const;

  TokenizerConfig config_;
  std::vector<AddedToken> added_;
  std::vector<std::string> contents_;                       // by id
  std::vector<std::string> bytes_;                          // by id
  std::vector<bool> special_;                               // by id
  std::unordered_map<std::string_view, std::int32_t> ids_;  // into contents_
  AddedTokens first_, second_;  // added tokens that are not `normalized`, and that are
  PreTokenizer pre_tokenizer_;
  BpeMerges merges_;
  std::unordered_map<std::string_view, std::int32_t> whole_;  // by bytes, for ignore_merges
  std::optional<std::int32_t> bos_id_, eos_id_, pad_id_;
};

// Turns ids into text as they come: only what later ids cannot change is handed out. All parts
// joined equal Tokenizer::decode. The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, SkipSpecial skip_special = SkipSpecial::No)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}
  std::string push(std::int32_t id);
  // What is left, an incomplete sequence as U+FFFD; ready for another text afterwards.
  std::string flush();

 private:
  const Tokenizer* tokenizer_;
  SkipSpecial skip_special_;
  std::string pending_;
};

}  // namespace minke

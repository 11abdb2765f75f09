// What becomes of each document of the input, and the 280 bytes that are remembered of it between
// the two passes over the input (data/shard_build.h).
#pragma once
#include <array>
#include <cstdint>
#include <type_traits>

#include "data/minhash.h"

namespace minke {

// A document has exactly one outcome, so that documents in = documents out + those left out.
enum class Outcome : std::uint8_t {
  // kept
  Train,
  HeldOut,
  Cut,  // a source's single document: its beginning is for training, its end held out
  // bad data, refused or skipped
  ItemTooLong,
  Truncated,
  InvalidUtf8,
  NotJson,
  NoText,
  WrongType,
  // cleaning
  TooShort,
  TooLong,
  RepeatedLines,
  // duplicates
  ExactDuplicate,
  NearDuplicate,
  NearHeldOut,
};
inline constexpr int kOutcomes = static_cast<int>(Outcome::NearHeldOut) + 1;

constexpr bool is_kept(Outcome outcome) {
  return outcome <= Outcome::Cut;
}
constexpr bool is_bad_data(Outcome outcome) {
  return outcome >= Outcome::ItemTooLong && outcome <= Outcome::WrongType;
}
// Its key in the manifest: "near_duplicate".
const char* name_of(Outcome outcome);

struct DocumentRecord {
  enum Change : std::uint8_t { LineEnds = 1, ControlCharacters = 2, ReplacedUtf8 = 4 };

  std::uint64_t hash = 0;        // held_out_hash of the cleaned text
  std::uint64_t text_bytes = 0;  // cleaned, or of a bad item as it was read
  std::array<std::uint64_t, kMinHashBands> bands{};
  std::array<std::uint8_t, kMinHashes> sketch{};
  std::uint32_t source = 0;          // of a document without fault, in order of first appearance
  Outcome outcome = Outcome::Train;  // Train: no fault was found in the document itself
  std::uint8_t changes = 0;          // Change
  std::uint8_t has_words = 0;        // otherwise it is near to nothing
  std::uint8_t is_dialogue = 0;      // never cut
};
static_assert(std::is_trivially_copyable_v<DocumentRecord>);
static_assert(sizeof(DocumentRecord) == 280);

}  // namespace minke

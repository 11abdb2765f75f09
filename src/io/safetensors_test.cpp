#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/test_directory.h"
#include "io/json_scanner.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

std::string file_bytes(std::string_view header, std::size_t data_bytes) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i));
  out += header;
  for (std::size_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i);
  return out;
}

struct SafetensorsFormat : TestDirectory {
  // The error of opening a file with this header; "" if it opens.
  std::string open(std::string_view header, std::size_t data_bytes) {
    put(dir / "f.safetensors", file_bytes(header, data_bytes));
    const std::string e = error_of([&] { SafetensorsFile::open(dir / "f.safetensors"); });
    if (e == "no error") return "";
    EXPECT_HOLDS(e, (dir / "f.safetensors").string());
    EXPECT_EQ(e.find('\n'), std::string::npos);
    return e;
  }
};

TEST_F(SafetensorsFormat, ReadsWhatIsLegal) {
  EXPECT_EQ(open("{}", 0), "");
  EXPECT_EQ(open("{}      ", 0), "");
  EXPECT_EQ(open(R"({"__metadata__":{}})", 0), "");
  EXPECT_EQ(open(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4), "");
  EXPECT_EQ(open(R"({"a":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]}})", 0), "");
  EXPECT_EQ(open(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                     "e":{"shape":[7,0],"data_offsets":[4,4],"dtype":"I64"},
                     "b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}})",
                 7),
            "");
  for (const char* type : {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL",
                           "F8_E4M3", "F8_E5M2", "F8_E8M0"}) {
    DType dtype;
    ASSERT_TRUE(parse_dtype(type, dtype));
    const std::size_t n = size_of(dtype) * 2;
    EXPECT_EQ(open(std::string("{\"a\":{\"dtype\":\"") + type +
                       "\",\"shape\":[2],\"data_offsets\":[0," + std::to_string(n) + "]}}",
                   n),
              "");
  }
}

TEST_F(SafetensorsFormat, NamesAreUnescaped) {
  EXPECT_EQ(
      open(R"({"\u00e9\ud83d\udc0b\n\"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1), "");
  const auto file = SafetensorsFile::open(dir / "f.safetensors");
  EXPECT_NE(file.find("é🐋\n\""), nullptr);
}

TEST_F(SafetensorsFormat, DuplicateNamesAreRefused) {
  EXPECT_HOLDS(open(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                    R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                    1),
               "tensor a is in the header twice");
  EXPECT_HOLDS(open(R"({"__metadata__":{"x":"1","x":"2"}})", 0), "__metadata__ has \"x\" twice");
  EXPECT_HOLDS(open(R"({"__metadata__":{},"__metadata__":{}})", 0), "__metadata__ twice");
  EXPECT_HOLDS(open(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
               "\"dtype\" twice");
}

TEST_F(SafetensorsFormat, HolesOverlapsAndRestsAreRefused) {
  const auto two = [](int begin, int end) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[)" +
           std::to_string(end - begin) + R"(],"data_offsets":[)" + std::to_string(begin) + "," +
           std::to_string(end) + "]}}";
  };
  EXPECT_EQ(open(two(4, 8), 8), "");
  EXPECT_HOLDS(open(two(5, 8), 8), "a hole before it");
  EXPECT_HOLDS(open(two(3, 8), 8), "an overlap");
  EXPECT_HOLDS(open(two(0, 4), 4), "an overlap");
  EXPECT_HOLDS(open(two(4, 8), 9), "describes 8 bytes of data but the file holds 9");
  EXPECT_HOLDS(open(two(4, 8), 7), "tensor b ends at byte 8 of the data, which has 7");
  EXPECT_HOLDS(open("{}", 1), "describes 0 bytes");
  EXPECT_HOLDS(open(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})", 3), "a hole");
}

TEST_F(SafetensorsFormat, ShapesMustMatchTheirRange) {
  const auto one = [](std::string_view type, std::string_view shape, std::string_view offsets) {
    return "{\"layer.w\":{\"dtype\":\"" + std::string(type) + "\",\"shape\":" + std::string(shape) +
           ",\"data_offsets\":" + std::string(offsets) + "}}";
  };
  EXPECT_EQ(open(one("F32", "[2,3]", "[0,24]"), 24), "");
  EXPECT_HOLDS(open(one("F32", "[2,3]", "[0,20]"), 20),
               "tensor layer.w: F32 [2, 3] takes 24 bytes, but its data_offsets are [0, 20]");
  EXPECT_HOLDS(open(one("BF16", "[2,3]", "[0,24]"), 24), "takes 12 bytes");
  EXPECT_HOLDS(open(one("F32", "[2,3]", "[24,0]"), 24), "takes 24 bytes");
  // Overflow: 2^62 * 4 = 2^64, and a product that comes round to a small number.
  EXPECT_HOLDS(open(one("F32", "[4611686018427387904]", "[0,0]"), 0), "too large");
  EXPECT_HOLDS(open(one("U8", "[4294967296,4294967297]", "[0,4294967296]"), 8), "too large");
  // An empty tensor, whose other extents a view would multiply.
  EXPECT_HOLDS(open(one("U8", "[4611686018427387904,2,0]", "[0,0]"), 0), "too large");
  EXPECT_HOLDS(open(one("U8", "[0,4611686018427387904,2]", "[0,0]"), 0), "too large");
  EXPECT_EQ(open(one("U8", "[0,4294967296]", "[0,0]"), 0), "");
  EXPECT_HOLDS(open(one("U8", "[18446744073709551615]", "[0,1]"), 1), "an extent of");
  EXPECT_HOLDS(open(one("U8", "[18446744073709551616]", "[0,1]"), 1), "below 2^64");
  EXPECT_HOLDS(open(one("U8", "[1]", "[18446744073709551615,18446744073709551616]"), 1), "2^64");
  EXPECT_HOLDS(open(one("U8", "[-1]", "[0,1]"), 1), "not negative");
  EXPECT_HOLDS(open(one("U8", "[1.0]", "[0,1]"), 1), "whole number");
  EXPECT_HOLDS(open(one("U8", "[1e0]", "[0,1]"), 1), "whole number");
  EXPECT_HOLDS(open(one("U8", "[01]", "[0,1]"), 1), "leading zeros");
  EXPECT_HOLDS(open(one("U8", "[1]", "[0]"), 1), "1 data_offsets, 2 expected");
  EXPECT_HOLDS(open(one("U8", "[1]", "[0,1,2]"), 1), "3 data_offsets");
  EXPECT_HOLDS(open(one("U8", "null", "[0,1]"), 1), "'[' expected");
  std::string many = "[1";
  for (int i = 0; i < 100; ++i) many += ",1";
  EXPECT_HOLDS(open(one("U8", many + "]", "[0,1]"), 1), "too many dimensions");
}

TEST_F(SafetensorsFormat, FieldsAndTypesMustBeKnown) {
  EXPECT_HOLDS(open(R"({"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", 1),
               "tensor w has the element type F4");
  EXPECT_HOLDS(open(R"({"w":{"shape":[1],"data_offsets":[0,1]}})", 1), "tensor w lacks \"dtype\"");
  EXPECT_HOLDS(open(R"({"w":{"dtype":"U8","data_offsets":[0,1]}})", 1), "lacks \"shape\"");
  EXPECT_HOLDS(open(R"({"w":{"dtype":"U8","shape":[1]}})", 1), "lacks \"data_offsets\"");
  EXPECT_HOLDS(open(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1),
               "unknown header field \"x\"");
  EXPECT_HOLDS(open(R"({"w":3})", 0), "'{' expected");
  EXPECT_HOLDS(open(R"({"__metadata__":{"a":1}})", 0), "'\"' expected");
}

TEST_F(SafetensorsFormat, HeadersMustBeWholeJson) {
  EXPECT_HOLDS(open("", 0), "does not start with '{'");
  EXPECT_HOLDS(open(" {}", 0), "does not start with '{'");
  EXPECT_HOLDS(open("[]", 0), "does not start with '{'");
  for (const char* header :
       {"{", "{\"", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":{", "{\"a\":{}", "{}x", "{},",
        "{\"a\\q\":1}", "{\"a\\u12\":1}", "{\"\\ud800\":1}", "{\"\\udc00\":1}", "{\"\xff\":1}",
        "{\"\xc0\x80\":1}", "{\"\xed\xa0\x80\":1}", "{\"a\nb\":1}"})
    EXPECT_NE(open(header, 0), "") << header;
}

TEST_F(SafetensorsFormat, TruncatedAndHugeHeadersAreRefused) {
  const fs::path path = dir / "f.safetensors";
  const auto error = [&] { return error_of([&] { SafetensorsFile::open(path); }); };
  put(path, "");
  EXPECT_HOLDS(error(), "0 bytes, too short");
  put(path, "1234567");
  EXPECT_HOLDS(error(), "7 bytes, too short");
  put(path, std::string("\x10\0\0\0\0\0\0\0{}", 10));
  EXPECT_HOLDS(error(), "claims 16 bytes but the file has 10");
  put(path, std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10));  // 100,000,001
  EXPECT_HOLDS(error(), "claims 100000001 bytes, at most 100000000");
  put(path, std::string(16, '\xff'));
  EXPECT_HOLDS(error(), "claims 18446744073709551615 bytes");
  fs::remove(path);
  EXPECT_HOLDS(error(), "No such file");
}

TEST_F(SafetensorsFormat, DeepNestingIsRefusedWithoutOverflow) {
  std::string deep(100000, '[');
  JsonScanner scanner(deep, "deep");
  EXPECT_HOLDS(error_of([&] { scanner.skip_value(); }), "fewer levels");
}

TEST_F(SafetensorsFormat, ViewsCheckTypeAndRank) {
  ASSERT_EQ(open(R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24), "");
  const auto file = SafetensorsFile::open(dir / "f.safetensors");
  EXPECT_EQ((file.view<float, 2>("w").extent(1)), 3);
  EXPECT_HOLDS(error_of([&] { file.view<BF16, 2>("w"); }), "tensor w is F32 [2, 3], but BF16");
  EXPECT_HOLDS(error_of([&] { file.view<float, 1>("w"); }), "with 1 dimensions");
  EXPECT_HOLDS(error_of([&] { file.view<float, 2>("v"); }), "there is no tensor v");
}

TEST_F(SafetensorsFormat, DataThatIsNotAlignedIsCopied) {
  ASSERT_EQ(open(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                     "w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
                 9),
            "");
  const auto file = SafetensorsFile::open(dir / "f.safetensors");
  const auto w = file.view<float, 1>("w");
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(w.data()) % 4, 0u);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(w(1)), 0x08070605u);
  EXPECT_EQ((file.view<float, 1>("w").data()), w.data());
  EXPECT_EQ(std::bit_cast<std::uint32_t>(file.read("w").v1()(0)), 0x04030201u);
}

TEST_F(SafetensorsFormat, AFileTruncatedWhileOpenIsAnError) {
  const Tensor big(DType::F32, {1 << 18});
  const NamedTensorView view = NamedTensorView::of("w", big);
  write_safetensors(dir / "f", {&view, 1});
  const auto mapped = SafetensorsFile::open(dir / "f");
  const auto later = SafetensorsFile::open(dir / "f");
  EXPECT_EQ((mapped.view<float, 1>("w")(0)), 0.0f);
  fs::resize_file(dir / "f", 10000);
  EXPECT_HOLDS(error_of([&] { mapped.read("w"); }), "became shorter");
  EXPECT_HOLDS(error_of([&] { later.read("w"); }), "when it was opened and has 10000 now");
}

TEST_F(SafetensorsFormat, WhatIsWrittenIsReadBack) {
  Tensor a(DType::BF16, {3, 5}), b(DType::F32, {}), c(DType::I64, {2}), d(DType::F8_E4M3, {7});
  Tensor e(DType::F32, {0, 4});
  std::mt19937 random(1);
  for (Tensor* t : {&a, &b, &c, &d, &e})
    for (std::size_t i = 0; i < t->bytes(); ++i)
      static_cast<std::uint8_t*>(t->raw())[i] = static_cast<std::uint8_t>(random());
  std::vector<NamedTensorView> all;
  for (auto& [name, t] : std::vector<std::pair<std::string, Tensor*>>{
           {"d", &d}, {"a\"\n鲸", &a}, {"b", &b}, {"c", &c}, {"e", &e}})
    all.push_back(NamedTensorView::of(name, *t));
  write_safetensors(dir / "f", all, {{"format", "pt"}, {"k", "v\t"}});
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), {}), 1);
  const auto file = SafetensorsFile::open(dir / "f");
  const Metadata metadata{{"format", "pt"}, {"k", "v\t"}};
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.tensors().size(), all.size());
  for (const NamedTensorView& v : all) {
    const TensorInfo& info = file.at(v.name);
    EXPECT_EQ(info.dtype, v.dtype);
    EXPECT_EQ(info.shape, v.shape);
    EXPECT_EQ(info.begin % size_of(info.dtype), 0u);
    const Tensor back = file.read(v.name);
    ASSERT_EQ(back.bytes(), v.bytes.size());
    if (!v.bytes.empty()) {
      EXPECT_EQ(std::memcmp(back.raw(), v.bytes.data(), back.bytes()), 0);
    }
  }
}

TEST_F(SafetensorsFormat, TheWriterRefusesMistakes) {
  const Tensor t(DType::F32, {2});
  const NamedTensorView v = NamedTensorView::of("a", t);
  const std::vector<NamedTensorView> twice{v, v};
  EXPECT_HOLDS(error_of([&] { write_safetensors(dir / "f", twice); }), "tensor a");
  SafetensorsWriter w(dir / "g", {{"a", DType::F32, {2}}});
  EXPECT_HOLDS(error_of([&] { w.write(v.bytes.first(4)); }), "4 bytes offered for tensor a of 8");
  EXPECT_HOLDS(error_of([&] { w.finish(); }), "tensor a was declared but not written");
  w.write(v.bytes);
  EXPECT_HOLDS(error_of([&] { w.write(v.bytes); }), "no tensor");
  EXPECT_HOLDS(error_of([&] { write_safetensors(dir / "no" / "f", {&v, 1}); }), "No such file");
  EXPECT_FALSE(fs::exists(dir / "f"));
}

TEST_F(SafetensorsFormat, DamagedFilesOpenOrThrowButNeverCrash) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  for (int i = 0; i < 5; ++i)
    header += ",\"t" + std::to_string(i) + R"(":{"dtype":"F32","shape":[2,2],"data_offsets":[)" +
              std::to_string(16 * i) + "," + std::to_string(16 * i + 16) + "]}";
  const std::string good = file_bytes(header + "}", 80);
  const fs::path path = dir / "f";
  std::mt19937 random(7);
  int opened = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string bad = good;
    const auto at = [&] { return random() % bad.size(); };
    switch (round % 5) {
      case 0:
        bad.resize(at());
        break;
      case 1:
        bad[at()] = static_cast<char>(random());
        break;
      case 2:
        bad[at()] ^= static_cast<char>(1u << random() % 8);
        break;
      case 3:
        bad.erase(at(), 1 + random() % 4);
        break;
      case 4:
        bad.insert(at(), good.substr(at(), 1 + random() % 30));
        break;
    }
    if (round % 7 == 0) bad[random() % 8 % bad.size()] = static_cast<char>(random());
    put(path, bad);
    try {
      const auto file = SafetensorsFile::open(path);
      for (const TensorInfo& info : file.tensors()) (void)file.read(info.name);
      ++opened;
    } catch (const Error& e) {
      EXPECT_GT(std::strlen(e.what()), path.string().size());
    }
  }
  EXPECT_GT(opened, 0);
  EXPECT_LT(opened, 3000);
}

}  // namespace
}  // namespace minke

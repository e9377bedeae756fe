// The stored form of a tokenizer: a magic number and a version, then the fields in their order.
#include "model/tokenizer_spec.h"

#include "base/bytes.h"

namespace switchyard::model {
namespace {

constexpr std::uint32_t kMagic = 0x4b545953;  // "SYTK"
constexpr std::uint32_t kVersion = 1;

// A list's count is believed only as far as the bytes that are left could hold it.
template <class Read>
void read_list(ByteReader& reader, std::size_t least_bytes, bool& ok, Read read) {
  const std::size_t count = reader.read<std::uint32_t>();
  if (!reader.ok() || count > reader.remaining() / least_bytes) {
    ok = false;
    return;
  }
  for (std::size_t i = 0; i < count && reader.ok(); ++i) read();
}

template <class Enum>
Enum read_enum(ByteReader& reader, Enum least, Enum most, bool& ok) {
  const auto value = static_cast<Enum>(reader.read<std::uint8_t>());
  if (value < least || value > most) {
    ok = false;
    return least;
  }
  return value;
}

bool read_bool(ByteReader& reader) { return reader.read<std::uint8_t>() != 0; }

void write_bool(ByteWriter& writer, bool value) { writer.write(static_cast<std::uint8_t>(value)); }

}  // namespace

std::vector<std::byte> TokenizerSpec::serialize() const {
  ByteWriter writer;
  writer.write(kMagic);
  writer.write(kVersion);
  writer.write(algorithm);
  writer.write(static_cast<std::uint32_t>(tokens.size()));
  for (const auto& token : tokens) writer.write_string(token);
  writer.write_vector<TokenKind>(kinds);
  writer.write_vector<float>(scores);
  writer.write(static_cast<std::uint32_t>(merges.size()));
  for (const auto& [left, right] : merges) {
    writer.write_string(left);
    writer.write_string(right);
  }
  writer.write(static_cast<std::uint32_t>(added.size()));
  for (const auto& token : added) {
    writer.write(token.id);
    writer.write_string(token.content);
    for (bool flag : {token.special, token.lstrip, token.rstrip, token.single_word, token.normalized}) {
      write_bool(writer, flag);
    }
  }
  writer.write(static_cast<std::uint32_t>(splits.size()));
  for (const auto& split : splits) {
    writer.write(split.kind);
    writer.write_string(split.pattern);
    writer.write(split.behaviour);
    write_bool(writer, split.invert);
  }
  for (bool flag : {normalize_nfc, ignore_merges, byte_fallback, blanks_late, fuse_unknown, add_prefix_space,
                    add_bos, add_eos}) {
    write_bool(writer, flag);
  }
  writer.write(prefix_style);
  writer.write(leading_space);
  for (std::int32_t id : {bos, eos, unknown, pad}) writer.write(id);
  writer.write_string(chat_template);
  return writer.take();
}

Result<TokenizerSpec> TokenizerSpec::parse(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  if (reader.read<std::uint32_t>() != kMagic) {
    return fail(ErrorCode::corrupt, "stored tokenizer: the first four bytes are not its mark");
  }
  if (const auto version = reader.read<std::uint32_t>(); version != kVersion) {
    return fail(ErrorCode::corrupt,
                "stored tokenizer: version {}, this program reads {}; make the image again", version,
                kVersion);
  }
  bool ok = true;
  TokenizerSpec spec;
  spec.algorithm = read_enum(reader, Algorithm::byte_level_bpe, Algorithm::sentencepiece_bpe, ok);
  read_list(reader, 4, ok, [&] { spec.tokens.emplace_back(reader.read_string()); });
  read_list(reader, 1, ok,
            [&] { spec.kinds.push_back(read_enum(reader, TokenKind::normal, TokenKind::byte, ok)); });
  spec.scores = reader.read_vector<float>();
  read_list(reader, 8, ok, [&] {
    std::string left(reader.read_string());
    spec.merges.emplace_back(std::move(left), reader.read_string());
  });
  read_list(reader, 13, ok, [&] {
    AddedToken token;
    token.id = reader.read<std::int32_t>();
    token.content = reader.read_string();
    for (bool* flag : {&token.special, &token.lstrip, &token.rstrip, &token.single_word, &token.normalized}) {
      *flag = read_bool(reader);
    }
    spec.added.push_back(std::move(token));
  });
  read_list(reader, 7, ok, [&] {
    SplitRule split;
    split.kind = read_enum(reader, SplitRule::Kind::pattern, SplitRule::Kind::whitespace, ok);
    split.pattern = reader.read_string();
    split.behaviour = read_enum(reader, SplitRule::Behaviour::isolated, SplitRule::Behaviour::contiguous, ok);
    split.invert = read_bool(reader);
    spec.splits.push_back(std::move(split));
  });
  for (bool* flag : {&spec.normalize_nfc, &spec.ignore_merges, &spec.byte_fallback, &spec.blanks_late,
                     &spec.fuse_unknown, &spec.add_prefix_space, &spec.add_bos, &spec.add_eos}) {
    *flag = read_bool(reader);
  }
  spec.prefix_style = read_enum(reader, PrefixStyle::always, PrefixStyle::first_unless_there, ok);
  spec.leading_space = read_enum(reader, LeadingSpace::kept, LeadingSpace::first_token_removed, ok);
  for (std::int32_t* id : {&spec.bos, &spec.eos, &spec.unknown, &spec.pad}) *id = reader.read<std::int32_t>();
  spec.chat_template = reader.read_string();
  if (!ok || !reader.finished()) {
    return fail(ErrorCode::corrupt, "stored tokenizer: contradicts itself near byte {} of {}",
                reader.position(), bytes.size());
  }
  return spec;
}

}  // namespace switchyard::model

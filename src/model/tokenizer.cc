#include "model/tokenizer.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include "model/tokenizer_added.h"
#include "model/tokenizer_alphabet.h"
#include "model/tokenizer_bpe.h"
#include "model/tokenizer_splitter.h"
#include "model/unicode.h"

namespace switchyard::model {
namespace {

using Algorithm = TokenizerSpec::Algorithm;

constexpr std::string_view kBlank = "\xE2\x96\x81";  // U+2581, SentencePiece's space

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t position = 0;;) {
    const auto found = text.find(from, position);
    out += text.substr(position, found - position);
    if (found == std::string_view::npos) return out;
    out += to;
    position = found + from.size();
  }
}

class BpeTokenizer final : public Tokenizer {
 public:
  static Result<std::unique_ptr<const Tokenizer>> create(TokenizerSpec spec);

  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string token_bytes(std::int32_t token) const override {
    return known(token) ? bytes_[static_cast<std::size_t>(token)] : std::string();
  }
  std::string decode(std::span<const std::int32_t> tokens, bool skip_special) const override;
  bool is_special(std::int32_t token) const override {
    return known(token) && special_[static_cast<std::size_t>(token)];
  }
  std::uint32_t vocab_size() const override { return static_cast<std::uint32_t>(spec_.tokens.size()); }
  const TokenizerSpec& spec() const override { return spec_; }

 private:
  struct Work {
    explicit Work(const Splitter& splitter) : split(splitter) {}
    Splitter::Scratch split;
    BpeMerger::Scratch merge;
    std::vector<AddedTokenFinder::Segment> segments;
    std::vector<AddedTokenFinder::Segment> inner;
    std::vector<std::int32_t> out;
    std::size_t max_tokens = 0;
    bool too_long() const { return out.size() > max_tokens; }
    void give_up() { out.resize(max_tokens + 1); }
  };

  BpeTokenizer(TokenizerSpec spec, Splitter splitter)
      : spec_(std::move(spec)), splitter_(std::move(splitter)) {}
  bool known(std::int32_t token) const {
    return token >= 0 && static_cast<std::size_t>(token) < bytes_.size();
  }
  bool sentencepiece() const { return spec_.algorithm == Algorithm::sentencepiece_bpe; }
  Status prepare();
  std::string normalize(std::string_view text) const;
  void encode_segment(std::string_view text, bool at_start, bool parse_special, Work& work) const;
  void encode_piece(std::string_view text, bool at_start, Work& work) const;
  void encode_word(std::string_view word, Work& work) const;
  void find_longest();
  // These words have more tokens than there is room for, by their length alone.
  bool sure_to_exceed(std::string_view words, const Work& work) const;
  void put_unknown(std::size_t begin, std::uint32_t length, bool& fusable, Work& work) const;

  TokenizerSpec spec_;
  Splitter splitter_;
  BpeMerger merger_;
  AddedTokenFinder before_;         // looked for in the text as it comes
  AddedTokenFinder after_;          // looked for in the normalised text
  std::vector<std::string> bytes_;  // of every token
  std::vector<bool> special_;
  std::vector<bool> added_;
  std::array<std::int32_t, 256> byte_ids_{};  // byte-level: the symbol of a byte; else its fall-back token
  std::unordered_map<std::string, std::int32_t> words_;  // bytes of a token, or text of a SentencePiece token
  std::size_t longest_ = 0;  // bytes of a word that one token can stand for; 0: not known
  bool splits_drop_text_ = false;
};

Result<std::unique_ptr<const Tokenizer>> BpeTokenizer::create(TokenizerSpec spec) {
  if (spec.kinds.size() != spec.tokens.size() ||
      (!spec.scores.empty() && spec.scores.size() != spec.tokens.size())) {
    return fail(ErrorCode::corrupt, "tokenizer: {} tokens, but {} kinds and {} scores", spec.tokens.size(),
                spec.kinds.size(), spec.scores.size());
  }
  auto splitter = Splitter::create(spec.splits);
  if (!splitter) return fail_at("tokenizer", splitter.error());
  std::unique_ptr<BpeTokenizer> made(new BpeTokenizer(std::move(spec), std::move(*splitter)));
  if (auto prepared = made->prepare(); !prepared) return fail_at("tokenizer", prepared.error());
  return std::unique_ptr<const Tokenizer>(std::move(made));
}

Status BpeTokenizer::prepare() {
  const std::size_t count = spec_.tokens.size();
  for (std::int32_t* id : {&spec_.bos, &spec_.eos, &spec_.unknown, &spec_.pad}) {
    if (*id < -1 || *id >= static_cast<std::int64_t>(count)) {
      return fail(ErrorCode::corrupt, "special token {} is outside of the vocabulary ({} tokens)", *id,
                  count);
    }
  }
  special_.resize(count);
  added_.resize(count);
  for (const auto& token : spec_.added) {
    if (token.id < 0 || static_cast<std::size_t>(token.id) >= count) {
      return fail(ErrorCode::corrupt, "added token {} is outside of the vocabulary ({} tokens)", token.id,
                  count);
    }
    const auto id = static_cast<std::size_t>(token.id);
    if (token.special) special_[id] = true;
    added_[id] = true;
    if (token.normalized) {
      after_.add(normalize(token.content), token);
    } else {
      before_.add(token.content, token);
    }
  }
  byte_ids_.fill(-1);
  bytes_.resize(count);
  std::unordered_map<std::string_view, std::int32_t> ids;
  ids.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto id = static_cast<std::int32_t>(i);
    const std::string& token = spec_.tokens[i];
    if (spec_.kinds[i] != TokenKind::unused) ids.try_emplace(token, id);
    // Text never becomes a control token but by its name.
    const bool is_word = spec_.kinds[i] != TokenKind::unused && spec_.kinds[i] != TokenKind::control;
    if (!sentencepiece()) {
      auto bytes = bytes_of_alphabet(token);
      if (bytes && is_word) words_.try_emplace(*bytes, id);
      bytes_[i] = bytes ? std::move(*bytes) : token;
    } else if (const int byte = byte_token_value(token); byte >= 0 && spec_.byte_fallback) {
      byte_ids_[static_cast<std::size_t>(byte)] = id;
      bytes_[i] = std::string(1, static_cast<char>(byte));
    } else {
      if (is_word) words_.try_emplace(token, id);
      bytes_[i] = replace_all(token, kBlank, " ");
    }
  }
  // Hugging Face decodes an added token that it looks for in normalised text to what it looks for.
  for (const auto& token : spec_.added) {
    if (!token.normalized) continue;
    std::string content = normalize(token.content);
    auto& bytes = bytes_[static_cast<std::size_t>(token.id)];
    bytes =
        sentencepiece() ? replace_all(content, kBlank, " ") : bytes_of_alphabet(content).value_or(content);
  }
  if (!sentencepiece()) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const auto found = ids.find(byte_alphabet()[byte]);
      if (found != ids.end()) byte_ids_[byte] = found->second;
    }
  }
  auto merger = BpeMerger::create(spec_, ids);
  if (!merger) return pass(merger.error());
  merger_ = std::move(*merger);
  find_longest();
  return {};
}

// Of what one token can stand for, unless text may vanish: SentencePiece's unknown characters do, or become
// one token together. Byte-level ones are not counted (see sure_to_exceed()).
void BpeTokenizer::find_longest() {
  const bool bytes_known =
      std::all_of(byte_ids_.begin(), byte_ids_.end(), [](std::int32_t id) { return id >= 0; });
  if (sentencepiece() && (!bytes_known || !spec_.byte_fallback)) return;
  constexpr std::size_t kMostOfACharacter = 4;
  longest_ = kMostOfACharacter;
  for (const auto& [word, id] : words_) longest_ = std::max(longest_, word.size());
  // In the printable alphabet a byte takes one byte or two.
  const auto length = [this](std::string_view text) -> std::size_t {
    if (sentencepiece()) return text.size();
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
  };
  for (const auto& [left, right] : spec_.merges) longest_ = std::max(longest_, length(left) + length(right));
  for (const auto& rule : spec_.splits) {
    if (rule.kind == SplitRule::Kind::whitespace || rule.behaviour == SplitRule::Behaviour::removed)
      splits_drop_text_ = true;
  }
}

bool BpeTokenizer::sure_to_exceed(std::string_view words, const Work& work) const {
  const std::size_t room = work.max_tokens - work.out.size();
  if (longest_ == 0 || words.size() / longest_ <= room) return false;
  if (sentencepiece()) return true;
  const auto known = std::count_if(words.begin(), words.end(),
                                   [this](char c) { return byte_ids_[static_cast<unsigned char>(c)] >= 0; });
  return static_cast<std::size_t>(known) / longest_ > room;
}

// What happens to text before words are cut: NFC, and SentencePiece's blanks.
std::string BpeTokenizer::normalize(std::string_view text) const {
  std::string out = spec_.normalize_nfc ? to_nfc(text) : std::string(text);
  if (sentencepiece() && spec_.add_prefix_space && spec_.prefix_style == PrefixStyle::always &&
      !out.empty()) {
    out.insert(0, 1, ' ');
  }
  return sentencepiece() && !spec_.blanks_late ? replace_all(out, " ", kBlank) : out;
}

void BpeTokenizer::put_unknown(std::size_t begin, std::uint32_t length, bool& fusable, Work& work) const {
  if (spec_.unknown < 0) return;
  auto& symbols = work.merge.symbols;
  if (fusable && spec_.fuse_unknown) {
    symbols.back().length += length;
  } else {
    symbols.push_back({begin, length, spec_.unknown});
  }
  fusable = true;
}

void BpeTokenizer::encode_word(std::string_view word, Work& work) const {
  if (sure_to_exceed(word, work)) return work.give_up();
  if (spec_.ignore_merges || word.size() == 1) {
    if (const auto found = words_.find(std::string(word)); found != words_.end()) {
      work.out.push_back(found->second);
      return;
    }
  }
  auto& symbols = work.merge.symbols;
  symbols.clear();
  bool fusable = false;
  if (!sentencepiece()) {
    for (std::size_t i = 0; i < word.size(); ++i) {
      const std::int32_t id = byte_ids_[static_cast<unsigned char>(word[i])];
      if (id >= 0) {
        symbols.push_back({i, 1, id});
        fusable = false;
      } else {
        put_unknown(i, 1, fusable, work);
      }
    }
    merger_.merge(word, work.merge, work.out);
    return;
  }
  for (std::size_t position = 0; position < word.size();) {
    const std::size_t length = utf8_step(word, position).length;
    const std::string character(word.substr(position, length));
    if (const auto found = words_.find(character); found != words_.end()) {
      symbols.push_back({position, static_cast<std::uint32_t>(length), found->second});
      fusable = false;
    } else {
      bool all = spec_.byte_fallback;
      for (char c : character) all = all && byte_ids_[static_cast<unsigned char>(c)] >= 0;
      if (all) {
        for (std::size_t i = 0; i < length; ++i) {
          symbols.push_back({position + i, 1, byte_ids_[static_cast<unsigned char>(character[i])]});
        }
        fusable = false;
      } else {
        put_unknown(position, static_cast<std::uint32_t>(length), fusable, work);
      }
    }
    position += length;
  }
  merger_.merge(word, work.merge, work.out);
}

// A stretch without added tokens: a space in front, then words.
void BpeTokenizer::encode_piece(std::string_view text, bool at_start, Work& work) const {
  if (text.empty() || work.too_long()) return;
  std::string blanked;
  if (sentencepiece() && spec_.blanks_late) {
    blanked = replace_all(text, " ", kBlank);
    text = blanked;
  }
  std::string prefixed;
  const bool wanted =
      spec_.add_prefix_space && (spec_.prefix_style == PrefixStyle::unless_there ||
                                 (spec_.prefix_style == PrefixStyle::first_unless_there && at_start));
  const std::string_view blank = sentencepiece() ? kBlank : " ";
  if (wanted && !text.starts_with(blank)) {
    prefixed = blank;
    prefixed += text;
    text = prefixed;
  }
  if (!splits_drop_text_ && sure_to_exceed(text, work)) return work.give_up();
  for (const auto piece : splitter_.split(text, work.split)) {
    if (work.too_long()) return;
    encode_word(text.substr(piece.begin, piece.end - piece.begin), work);
  }
}

void BpeTokenizer::encode_segment(std::string_view text, bool at_start, bool parse_special,
                                  Work& work) const {
  std::string normalized;
  if (spec_.normalize_nfc || sentencepiece()) {
    normalized = normalize(text);
    text = normalized;
  }
  if (after_.empty()) {
    encode_piece(text, at_start, work);
    return;
  }
  work.inner.clear();
  after_.find(text, parse_special, work.inner);
  for (const auto& segment : work.inner) {
    if (segment.token >= 0) {
      work.out.push_back(segment.token);
    } else {
      encode_piece(text.substr(segment.begin, segment.end - segment.begin), at_start && segment.begin == 0,
                   work);
    }
  }
}

std::vector<std::int32_t> BpeTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::string repaired;
  if (!utf8_valid(text)) {
    repaired = utf8_repair(text);
    text = repaired;
  }
  Work work(splitter_);
  work.max_tokens = options.max_tokens;
  work.out.reserve(std::min(text.size() / 3, options.max_tokens) + 4);
  if (options.add_special && spec_.add_bos && spec_.bos >= 0) work.out.push_back(spec_.bos);
  before_.find(text, options.parse_special, work.segments);
  for (const auto& segment : work.segments) {
    if (work.too_long()) break;
    if (segment.token >= 0) {
      work.out.push_back(segment.token);
    } else {
      encode_segment(text.substr(segment.begin, segment.end - segment.begin), segment.begin == 0,
                     options.parse_special, work);
    }
  }
  if (options.add_special && spec_.add_eos && spec_.eos >= 0) work.out.push_back(spec_.eos);
  return std::move(work.out);
}

std::string BpeTokenizer::decode(std::span<const std::int32_t> tokens, bool skip_special) const {
  std::string out;
  std::string
      run;  // SentencePiece: neighbouring byte tokens, which are text only if all of them together are
  const auto end_run = [&] {
    if (utf8_valid(run)) {
      out += run;
    } else {
      for (std::size_t i = 0; i < run.size(); ++i) out += kReplacement;
    }
    run.clear();
  };
  bool first = true;
  for (const std::int32_t token : tokens) {
    if (!known(token) || (skip_special && is_special(token))) continue;
    const auto id = static_cast<std::size_t>(token);
    if (sentencepiece() && spec_.byte_fallback && byte_token_value(spec_.tokens[id]) >= 0) {
      run += bytes_[id];
      first = false;
      continue;
    }
    end_run();
    std::string_view bytes = bytes_[id];
    if (first && spec_.leading_space == LeadingSpace::first_token_removed) {
      out += replace_all(bytes, " ", "");
    } else {
      out += bytes;
    }
    first = false;
  }
  end_run();
  if (spec_.leading_space == LeadingSpace::one_removed && out.starts_with(' ')) out.erase(0, 1);
  return utf8_valid(out) ? out : utf8_repair(out);
}

}  // namespace

Result<std::unique_ptr<const Tokenizer>> Tokenizer::create(TokenizerSpec spec) {
  return BpeTokenizer::create(std::move(spec));
}

}  // namespace switchyard::model

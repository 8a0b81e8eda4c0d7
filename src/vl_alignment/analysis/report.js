// Show the pictures of one alignment function at a time. Without scripts all of them stand below each other.
for (const section of document.querySelectorAll("section.attention")) {
  const choices = section.querySelectorAll(".switch input");
  const show = (chosen) => {
    for (const drawn of section.querySelectorAll(".drawn")) drawn.hidden = drawn.dataset.function !== chosen;
  };
  section.classList.add("switched");
  section.querySelector(".switch").hidden = choices.length < 2;
  for (const choice of choices) choice.addEventListener("change", () => show(choice.value));
  show([...choices].find((choice) => choice.checked)?.value ?? "0");
}
